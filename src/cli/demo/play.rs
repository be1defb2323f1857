//! The play: each case in the order of its story, then the restart, then the jumps of the clocks.

use std::time::Duration;

use futures_util::future::join_all;
use secrecy::SecretString;

use super::board::Board;
use super::cases::{Case, Ends, Story, TO_DEADLINE, TO_FIRST_POLL, TO_GIVING_UP};
use super::merchant::{Merchant, Registration};
use super::stage::Stage;
use crate::simulator::{Complete, CreateTransaction, SendCallbacks};

/// Between the beginnings of two cases, so that they can be followed by eye.
const STEP: Duration = Duration::from_millis(100);
/// How often the merchant's server looks.
const LOOK: Duration = Duration::from_millis(50);
/// How long cases may take to end by themselves, and after a jump. Nothing takes this long when all is well.
const PATIENCE: Duration = Duration::from_secs(25);
const PATIENCE_AFTER_JUMP: Duration = Duration::from_secs(7);

pub async fn play(stage: &Stage, merchant: &Merchant, cases: &[Case], board: &Board) -> anyhow::Result<()> {
    board.scene("Each case is registered; then the provider calls back.");
    join_all(cases.iter().enumerate().map(async |(n, case)| {
        tokio::time::sleep(STEP * u32::try_from(n).unwrap_or(0)).await;
        if let Err(error) = act(stage, merchant, case, n, board).await {
            board.see(n, |seen| seen.error = Some(format!("{error:#}")));
        }
    }))
    .await;
    board.scene("The service is stopped and started again, while checks are due.");
    stage.restart().await?;
    board.scene("The service is running again and goes on where it stopped.");
    board.until_ended(cases, Ends::Soon, PATIENCE).await;
    for (scene, by, ends) in [
        ("5 minutes pass: what nothing was heard of is asked for anyway.", TO_FIRST_POLL, Ends::AtFirstPoll),
        ("24 hours pass: whoever has not finished by now is given up.", TO_GIVING_UP, Ends::WhenGivenUp),
        ("30 days pass: the provider deletes its results.", TO_DEADLINE, Ends::AtDeadline),
    ] {
        board.scene(scene);
        stage.advance(by);
        board.until_ended(cases, ends, PATIENCE_AFTER_JUMP).await;
    }
    Ok(())
}

/// Looks at the service for as long as the play goes on.
pub async fn watch(merchant: &Merchant, board: &Board) {
    let mut versions = Vec::new();
    loop {
        // While the service is restarted there is nothing to see.
        let _no_answer = merchant.look(board, &mut versions).await.is_err();
        tokio::time::sleep(LOOK).await;
    }
}

async fn act(stage: &Stage, merchant: &Merchant, case: &Case, n: usize, board: &Board) -> anyhow::Result<()> {
    let (simulator, url) = (&stage.simulator, stage.callback_url(case.account));
    let token = stage.entropy.hex32();
    if case.story == Story::Unknown {
        let transaction_id = format!("unknown{}", stage.entropy.hex32());
        register(merchant, case, &transaction_id, None, Some(&token), n, board).await?;
        let callback = SendCallbacks {
            callback_url: Some(url),
            callback_token: Some(token.into()),
            wait: true,
            ..SendCallbacks::default()
        };
        let answers = simulator.send_callbacks(&transaction_id, callback).await?;
        board.see(n, |seen| seen.callbacks = answers);
        return Ok(());
    }
    let (token, registered) = match case.story {
        Story::NoToken => (None, None),
        // Before the registration only the token of the account can be known.
        Story::CallbackEarly => (Some(&stage.account_token), Some(&token)),
        _ => (Some(&token), Some(&token)),
    };
    let created = simulator.create(CreateTransaction {
        callback_url: Some(url),
        callback_token: token.map(|token| SecretString::from(token.as_str())),
        sub_code: case.sub_code.map(str::to_owned),
        not_completed_calls: case.not_completed_calls,
        pending_calls: case.pending_calls,
        ..CreateTransaction::default()
    })?;
    let transaction_id = &created.transaction_id;
    if let Some(fault) = &case.faults {
        let mut fault = fault.clone();
        fault.transaction_id = Some(transaction_id.clone());
        simulator.add_fault(fault)?;
    }
    let register = async || {
        let (biz_id, token) = (Some(created.merchant_biz_id.as_str()), registered.map(String::as_str));
        register(merchant, case, transaction_id, biz_id, token, n, board).await
    };
    if case.story != Story::CallbackEarly {
        register().await?;
    }
    let copies = match case.story {
        Story::Abandoned => return Ok(()),
        Story::CallbackLost => 0,
        Story::CalledBack(copies) => copies,
        _ => 1,
    };
    // Of a forged one, the first callback is somebody else's.
    let forged = (case.story == Story::CallbackForged).then(|| stage.entropy.hex32().into());
    let done = Complete { callbacks: Some(copies), callback_token: forged, wait: true, ..Complete::default() };
    let mut answers = simulator.complete(transaction_id, done).await?.callback_statuses;
    if case.story == Story::CallbackForged {
        let genuine = SendCallbacks { wait: true, ..SendCallbacks::default() };
        answers.extend(simulator.send_callbacks(transaction_id, genuine).await?);
    }
    board.see(n, |seen| seen.callbacks = answers);
    if case.story == Story::CallbackEarly {
        register().await?;
    }
    Ok(())
}

async fn register(
    merchant: &Merchant,
    case: &Case,
    transaction_id: &str,
    merchant_biz_id: Option<&str>,
    callback_token: Option<&str>,
    n: usize,
    board: &Board,
) -> anyhow::Result<()> {
    let registration =
        Registration { account: case.account, transaction_id, merchant_biz_id, callback_token, case: case.name };
    let id = merchant.register(&registration).await?;
    board.see(n, |seen| seen.id = Some(id));
    Ok(())
}
