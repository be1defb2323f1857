//! What tests and people may do beside the API: make transactions, finish them, send callbacks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};

use super::Alibaba;
use super::callbacks::Plan;
use super::commands::{
    Answer, CallbackMethod, CallbackSpelling, Complete, CompletedTransaction, CreateTransaction, CreatedTransaction,
    SendCallbacks, TransactionView,
};
use super::outcome::{Product, Wish};
use super::refusal::Refusal;
use super::transactions::{Extras, Scripted, Transaction};
use crate::simulator::ControlError;
use crate::simulator::state::SimulatorState;

/// What every way to send callbacks says about them.
struct CallbackWish {
    copies: Option<u32>,
    url: Option<String>,
    token: Option<SecretString>,
    delay_ms: u64,
    method: CallbackMethod,
    spelling: CallbackSpelling,
}

/// What callbacks repeat of a transaction.
#[derive(Default)]
struct Known {
    url: Option<Box<str>>,
    token: Option<SecretString>,
    passed: Option<String>,
    sub_code: Option<String>,
}

impl Known {
    fn of(transaction: &Transaction) -> Self {
        Self {
            url: transaction.callback_url.clone(),
            token: transaction.callback_token.clone(),
            passed: Some(transaction.outcome.passed.to_string()),
            sub_code: transaction.outcome.sub_code.as_deref().map(Into::into),
        }
    }

    /// `None` when there is nothing to send.
    fn plan(self, id: &str, wish: CallbackWish) -> Result<Option<Plan>, ControlError> {
        let Some(url) = wish.url.or(self.url.map(String::from)) else {
            return match wish.copies {
                None | Some(0) => Ok(None),
                Some(_) => Err(ControlError::Invalid(format!("there is no callback_url for transaction {id}"))),
            };
        };
        let url =
            Url::parse(&url).map_err(|error| ControlError::Invalid(format!("callback_url is no URL: {error}")))?;
        let token = wish.token.or(self.token).map(|token| token.expose_secret().to_owned());
        let copies = wish.copies.unwrap_or(1);
        Ok((copies > 0).then(|| Plan {
            url,
            transaction_id: id.to_owned(),
            token: token.filter(|token| !token.is_empty()),
            passed: self.passed,
            sub_code: self.sub_code,
            method: wish.method,
            spelling: wish.spelling,
            copies,
            delay: Duration::from_millis(wish.delay_ms),
        }))
    }
}

impl Alibaba {
    pub(in crate::simulator) fn create(
        &self,
        command: CreateTransaction,
        now: DateTime<Utc>,
    ) -> Result<CreatedTransaction, ControlError> {
        let product_code = command.product_code.as_deref().unwrap_or("FACE_LIVENESS");
        let product = Product::of(product_code);
        let wish = Wish {
            passed: command.passed.as_deref(),
            sub_code: command.sub_code.as_deref(),
            scores: &command.scores,
            ext: &command.ext,
        };
        let script: VecDeque<_> = command.answers.iter().map(|answer| self.prepare(answer, product)).collect();
        let completed = command.completed.unwrap_or(!script.is_empty());
        let id = command.transaction_id.unwrap_or_else(|| self.new_transaction_id());
        if id.is_empty() {
            return Err(ControlError::Invalid("transaction_id is empty".to_owned()));
        }
        let merchant_biz_id = command.merchant_biz_id.unwrap_or_else(|| self.random.hex::<16>());
        let outcome = self.outcomes.choose(&wish, product, None);
        let mut transaction = Transaction::new(&merchant_biz_id, product_code, product, outcome);
        transaction.callback_url = command.callback_url.map(Into::into);
        transaction.callback_token = command.callback_token;
        transaction.doc_video = command.doc_video;
        transaction.completed_at = completed.then_some(now);
        transaction.not_completed_calls = command.not_completed_calls;
        transaction.pending_calls = command.pending_calls;
        // Extras cost memory, and a rehearsal with a million transactions has none.
        if !script.is_empty() || command.gone_code.is_some() {
            *transaction.extras() = Extras { script, gone_code: command.gone_code, interrupted: None };
        }
        if !self.transactions.insert(&id, transaction) {
            return Err(ControlError::TransactionExists(id));
        }
        Ok(CreatedTransaction { transaction_id: id, merchant_biz_id })
    }

    fn prepare(&self, answer: &Answer, product: Product) -> Scripted {
        if let Some(body) = &answer.body {
            return Scripted::Text { status: answer.status.unwrap_or(200), body: body.as_str().into() };
        }
        if let Some(code) = &answer.code {
            let mut refusal = Refusal::new(code.clone()).adjusted(answer.status, answer.message.as_deref());
            refusal.retry_after_ms = answer.retry_after_ms;
            return Scripted::Refused(refusal);
        }
        let (passed, sub_code) = (answer.passed.as_deref(), answer.sub_code.as_deref());
        let wish = Wish { passed, sub_code, scores: &answer.scores, ext: &answer.ext };
        Scripted::Outcome(self.outcomes.choose(&wish, product, None))
    }

    pub(in crate::simulator) fn view(&self, id: &str) -> Option<TransactionView> {
        self.transactions.with(id, |transaction| TransactionView {
            transaction_id: id.to_owned(),
            merchant_biz_id: transaction.merchant_biz_id.to_string(),
            product_code: transaction.product_code.to_string(),
            doc_video: transaction.doc_video,
            passed: transaction.completed_at.map(|_| transaction.outcome.passed.to_string()),
            sub_code: transaction.completed_at.and(transaction.outcome.sub_code.as_deref()).map(Into::into),
            completed_at: transaction.completed_at,
            interrupted: transaction.interrupted().map(Into::into),
            callback_url: transaction.callback_url.as_deref().map(Into::into),
            return_url: transaction.return_url.as_deref().map(Into::into),
            has_callback_token: transaction.callback_token.is_some(),
        })
    }

    /// Changes the transaction; the callbacks are for the caller to send.
    fn finish(&self, id: &str, command: Complete, now: DateTime<Utc>) -> Result<Finished, ControlError> {
        let Complete { passed, sub_code, scores, ext, interrupted, .. } = command;
        let callbacks = CallbackWish {
            copies: if interrupted.is_some() { command.callbacks.or(Some(0)) } else { command.callbacks },
            url: command.callback_url,
            token: command.callback_token,
            delay_ms: command.callback_delay_ms,
            method: command.callback_method,
            spelling: command.callback_spelling,
        };
        let wish = Wish { passed: passed.as_deref(), sub_code: sub_code.as_deref(), scores: &scores, ext: &ext };
        let finished = self.transactions.with(id, |transaction| {
            // A plan that cannot be made leaves the transaction as it was.
            let mut known = Known::of(transaction);
            let outcome = if wish.is_open() {
                Arc::clone(&transaction.outcome)
            } else {
                self.outcomes.choose(&wish, transaction.product, transaction.priority)
            };
            known.passed = Some(outcome.passed.to_string());
            known.sub_code = outcome.sub_code.as_deref().map(Into::into);
            let plan = known.plan(id, callbacks)?;
            if let Some(code) = interrupted {
                transaction.extras().interrupted = Some(code);
                return Ok(Finished { plan, passed: None, sub_code: None, completed_at: None });
            }
            transaction.not_completed_calls = command.not_completed_calls.unwrap_or(transaction.not_completed_calls);
            transaction.pending_calls = command.pending_calls.unwrap_or(transaction.pending_calls);
            transaction.outcome = outcome;
            // Finishing again changes the outcome; what is deleted when counts from the first time.
            let completed_at = *transaction.completed_at.get_or_insert(now);
            let outcome = &transaction.outcome;
            Ok(Finished {
                plan,
                passed: Some(outcome.passed.to_string()),
                sub_code: outcome.sub_code.as_deref().map(Into::into),
                completed_at: Some(completed_at),
            })
        });
        finished.unwrap_or_else(|| Err(ControlError::UnknownTransaction(id.to_owned())))
    }
}

struct Finished {
    plan: Option<Plan>,
    passed: Option<String>,
    sub_code: Option<String>,
    completed_at: Option<DateTime<Utc>>,
}

/// How many callbacks go out, and the statuses of their answers when they were waited for.
async fn dispatch(state: &Arc<SimulatorState>, plan: Option<Plan>, wait: bool) -> (u32, Vec<u16>) {
    let Some(plan) = plan else { return (0, Vec::new()) };
    let copies = plan.copies;
    if wait {
        return (copies, plan.send(Arc::clone(state)).await);
    }
    spawn(plan, Arc::clone(state));
    (copies, Vec::new())
}

#[expect(clippy::disallowed_methods, reason = "a callback belongs to nobody once it is on its way; it ends in seconds")]
fn spawn(plan: Plan, state: Arc<SimulatorState>) {
    tokio::spawn(plan.send(state));
}

pub(in crate::simulator) async fn complete(
    state: &Arc<SimulatorState>,
    id: &str,
    command: Complete,
) -> Result<CompletedTransaction, ControlError> {
    let wait = command.wait;
    let Finished { plan, passed, sub_code, completed_at } = state.alibaba.finish(id, command, state.clock.now())?;
    let (callbacks, callback_statuses) = dispatch(state, plan, wait).await;
    Ok(CompletedTransaction {
        transaction_id: id.to_owned(),
        passed,
        sub_code,
        completed_at,
        callbacks,
        callback_statuses,
    })
}

pub(in crate::simulator) async fn send_callbacks(
    state: &Arc<SimulatorState>,
    id: &str,
    command: SendCallbacks,
) -> Result<Vec<u16>, ControlError> {
    let mut known = state.alibaba.transactions.with(id, |transaction| Known::of(transaction)).unwrap_or_default();
    known.passed = command.passed.or(known.passed).or_else(|| Some("Y".to_owned()));
    known.sub_code = command.sub_code.or(known.sub_code).or_else(|| Some("200".to_owned()));
    let wish = CallbackWish {
        copies: Some(command.callbacks.unwrap_or(1)),
        url: command.callback_url,
        token: command.callback_token,
        delay_ms: command.callback_delay_ms,
        method: command.callback_method,
        spelling: command.callback_spelling,
    };
    let plan = known.plan(id, wish)?;
    Ok(dispatch(state, plan, command.wait).await.1)
}
