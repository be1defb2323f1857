//! The play: each case in the order of its story, then the restart, then the jumps of the clocks.

use std::time::Duration;

use futures_util::future::join_all;

use super::act::Act;
use super::board::Board;
use super::cases::{Case, Ends, TO_DEADLINE, TO_FIRST_POLL, TO_GIVING_UP};
use super::merchant::Merchant;
use super::stage::Stage;

/// Between the beginnings of two cases of a provider, so that they can be followed by eye.
const STEP: Duration = Duration::from_millis(100);
/// How often the merchant's server looks.
const LOOK: Duration = Duration::from_millis(50);
/// How long cases may take to end by themselves, and after a jump. Nothing takes this long when all is well.
const PATIENCE: Duration = Duration::from_secs(25);
const PATIENCE_AFTER_JUMP: Duration = Duration::from_secs(7);

pub async fn play(stage: &Stage, merchant: &Merchant, cases: &[Case], board: &Board) -> anyhow::Result<()> {
    board.scene("Each case is registered; then the person finishes, and the provider, a browser or the app says so.");
    join_all(cases.iter().enumerate().map(async |(n, case)| {
        let provider = case.process.provider();
        let before = cases[..n].iter().filter(|case| case.process.provider() == provider).count();
        tokio::time::sleep(STEP * u32::try_from(before).unwrap_or(0)).await;
        if let Err(error) = (Act { stage, merchant, board, case, n }).play().await {
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
    merchant.look_at_accounts(board, cases).await
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
