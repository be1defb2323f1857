//! `checkback demo`: everything on this machine, with no set-up.
//!
//! A private Postgres, the simulated providers and the service run in this process. The demo is the merchant's server:
//! it starts transactions at the simulators, registers them over the API, shows the verdicts as they arrive and is told
//! of each by a webhook. With
//! `--check` it compares them with what must come. Nothing of it is left behind.

mod act;
mod board;
mod cases;
mod merchant;
mod play;
mod receiver;
mod stage;
mod table;

use std::process::ExitCode;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{FAILED, Outcome, output};
use crate::config::Environment;
use crate::lifecycle::{Tasks, stop_signal};

use board::{Board, Seen, State, differences};
use cases::{Case, MAIN, ZOLOZ, cases};
use merchant::Merchant;
use stage::Stage;
use table::Screen;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Compare the verdicts with what is expected, then end: with 0, or 1 where they differ.
    #[arg(long)]
    check: bool,
}

pub async fn run(environment: &Environment, arguments: &Arguments) -> Outcome {
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    Tasks::new().spawn(async move {
        stop_signal().await;
        stopping.cancel();
    });
    output::line("Starting a private Postgres, the simulated providers and the service ...");
    let stage = Box::pin(Stage::open(environment)).await?;
    let result = show(&stage, environment, arguments, &stop).await;
    let closed = stage.close().await;
    let code = result?;
    closed?;
    Ok(code)
}

async fn show(
    stage: &Stage,
    environment: &Environment,
    arguments: &Arguments,
    stop: &CancellationToken,
) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let cases = cases();
    let board = Board::new(cases.len());
    let merchant = Merchant::new(format!("http://{}", stage.internal), &stage.key)?;
    output::line(&format!(
        "API http://{}, callbacks to http://{}, simulators http://{}\n",
        stage.internal, stage.public, stage.simulator_address
    ));
    let mut screen = Screen::new(&cases, !environment.no_color());
    let drawing = async {
        let mut changes = board.changes();
        loop {
            screen.show(&changes.borrow_and_update().clone());
            // The board outlives this.
            let _never = changes.changed().await.is_err();
        }
    };
    let played = tokio::select! {
        biased;
        () = stop.cancelled() => None,
        played = play::play(stage, &merchant, &cases, &board) => Some(played),
        () = play::watch(&merchant, &board) => None,
        () = drawing => None,
    };
    let last = board.state();
    screen.finish(&last);
    let Some(played) = played else {
        output::line("Stopped before the end.");
        return Ok(if arguments.check { ExitCode::from(FAILED) } else { ExitCode::SUCCESS });
    };
    played?;
    let mut wrong = wrong(&cases, &last);
    let ends: Vec<_> = last.seen.iter().map(end).collect();
    let untold = stage.receiver.untold(&cases, &ends).await;
    wrong.extend(untold.into_iter().map(|name| format!("  {name}: no webhook told its end")));
    let seconds = started.elapsed().as_secs_f64();
    let right = cases.len().saturating_sub(wrong.len());
    output::line(&format!("{right} of {} as expected, in {seconds:.1} s.", cases.len()));
    output::line(&stage.receiver.summary());
    for line in &wrong {
        output::line(line);
    }
    for line in trouble(&cases, &last) {
        output::line(&line);
    }
    if arguments.check {
        return Ok(if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) });
    }
    output::line(&invitation(stage));
    stop.cancelled().await;
    output::line("Stopping; the demo's database is removed.");
    Ok(ExitCode::SUCCESS)
}

/// A line for each case that is not as expected.
fn wrong(cases: &[Case], state: &State) -> Vec<String> {
    let pairs = cases.iter().zip(&state.seen).map(|(case, seen)| (case.name, differences(case, seen)));
    pairs
        .filter(|(_, found)| !found.is_empty())
        .map(|(name, found)| format!("  {name}: {}", found.join("; ")))
        .collect()
}

/// What a webhook must have told of a case: its verification and the type of the event.
fn end(seen: &Seen) -> Option<(String, String)> {
    let id = seen.id.clone().filter(|_| seen.is_final)?;
    Some((id, format!("verification.{}", seen.status)))
}

/// A line for each account that is in trouble at the end.
fn trouble(cases: &[Case], state: &State) -> Vec<String> {
    let mut lines: Vec<_> = cases
        .iter()
        .zip(&state.seen)
        .filter_map(|(case, seen)| {
            let reason = seen.trouble.as_ref()?;
            Some(format!("Account {} is failing, its work waits until it is mended: {reason} (/readyz).", case.account))
        })
        .collect();
    lines.dedup();
    lines
}

/// What can be done now.
fn invitation(stage: &Stage) -> String {
    let Stage { internal, simulator_address, key, .. } = stage;
    let callback = stage.callback_url(MAIN);
    format!(
        "\nEverything goes on running, its clocks a month ahead. Press Ctrl-C to end it. Until then, look:\n\
         \n  http://{internal}/console   (sign in with {key})\n\
         \nOr try:\n\
         \n  KEY={key}\n  \
         curl -s -H \"Authorization: Bearer $KEY\" 'http://{internal}/verifications?status=failed'\n  \
         curl -s http://{internal}/readyz\n  \
         curl -s -H \"Authorization: Bearer $KEY\" http://{internal}/metrics\n  \
         curl -s http://{simulator_address}/_sim/calls\n\
         \nA check of your own: make one at the simulator, register it, finish it, read the verdict:\n\
         \n  curl -s http://{simulator_address}/_sim/transactions \
         -d '{{\"transaction_id\":\"mine\",\"callback_url\":\"{callback}\"}}'\n  \
         curl -s -H \"Authorization: Bearer $KEY\" -H 'Content-Type: application/json' \
         http://{internal}/verifications -d '{{\"account\":\"{MAIN}\",\"transaction_id\":\"mine\",\
         \"callback_token\":\"any-text-of-16-or-more\"}}'\n  \
         curl -s http://{simulator_address}/_sim/transactions/mine/complete \
         -d '{{\"sub_code\":\"205\",\"callback_token\":\"any-text-of-16-or-more\"}}'\n  \
         curl -s -H \"Authorization: Bearer $KEY\" 'http://{internal}/verifications?transaction_id=mine'\n\
         \nOne at ZOLOZ that the service starts itself:\n\
         \n  curl -s -H \"Authorization: Bearer $KEY\" -H 'Content-Type: application/json' \
         http://{internal}/verifications \
         -d '{{\"account\":\"{ZOLOZ}\",\"initialize\":{{\"metaInfo\":\"MOB_H5\",\"userId\":\"u-1\"}}}}'\n"
    )
}

#[cfg(test)]
mod tests {
    use super::board::as_expected;
    use super::*;

    fn good() -> (Vec<Case>, State) {
        let cases = cases();
        let seen = cases.iter().map(as_expected).collect();
        (cases, State { scene: String::new(), seen })
    }

    #[test]
    fn a_verdict_that_differs_is_wrong_whichever_case_it_is() {
        let (cases, state) = good();
        assert!(wrong(&cases, &state).is_empty());
        for (n, case) in cases.iter().enumerate() {
            let mut state = state.clone();
            "expired?".clone_into(&mut state.seen[n].status);
            let lines = wrong(&cases, &state);
            assert_eq!(lines.len(), 1, "{}", case.name);
            assert!(lines[0].contains(case.name) && lines[0].contains("got expired?"), "{lines:?}");
        }
    }

    #[test]
    fn an_account_that_is_failing_is_named_with_its_reason() {
        let (cases, state) = good();
        let lines = trouble(&cases, &state);
        assert_eq!(lines.len(), 1);
        assert!(lines[0].contains("zoloz-id") && lines[0].contains("bad_signature"), "{lines:?}");
    }
}
