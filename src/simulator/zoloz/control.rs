//! What tests and people may do beside the API: make transactions and finish them. The provider calls nobody back; the
//! browser is sent to the merchant, and where, a completion tells.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Url;
use serde_json::json;

use super::Zoloz;
use super::commands::{CompletedZoloz, ZolozComplete, ZolozOutcome, ZolozTransaction, ZolozView};
use super::transactions::{H5, Transaction};
use crate::simulator::{ControlError, CreatedTransaction};

impl ZolozOutcome {
    /// True when nothing was asked for.
    fn is_open(&self) -> bool {
        let Self {
            result_code,
            result_status,
            result_message,
            product_result,
            face_score,
            face_attack,
            deeper_result,
            deeper_result_description,
            image_bytes,
            patch,
        } = self;
        let texts =
            [result_code, result_status, result_message, product_result, deeper_result, deeper_result_description];
        texts.iter().all(|text| text.is_none())
            && face_score.is_none()
            && face_attack.is_none()
            && image_bytes.is_none()
            && patch.is_empty()
    }
}

/// What the browser carries in `response`: the code and the sub-code.
fn browser_codes(interrupted: Option<&str>, good: bool) -> (&'static str, &str) {
    match interrupted {
        Some(sub_code) => ("1003", sub_code),
        None if good => ("1000", "Z5050"),
        None => ("2006", "Z5051"),
    }
}

fn redirect(h5: &H5, interrupted: Option<&str>, good: bool) -> Result<String, ControlError> {
    let wrong = |what: &str| ControlError::Invalid(what.to_owned());
    let (name, url) = match interrupted {
        None => ("completeCallbackUrl", &h5.complete),
        Some(_) => ("interruptCallbackUrl", &h5.interrupt),
    };
    let url = url.as_deref().ok_or_else(|| wrong(&format!("the transaction has no {name} to redirect to")))?;
    let mut url = Url::parse(url).map_err(|error| wrong(&format!("{name} is no URL: {error}")))?;
    let (code, sub_code) = browser_codes(interrupted, good);
    let response =
        json!({"state": h5.state.as_deref().unwrap_or(""), "code": code, "subCode": sub_code, "extInfo": {}});
    let response = utf8_percent_encode(&response.to_string(), NON_ALPHANUMERIC).to_string();
    let query = match url.query() {
        Some(query) => format!("{query}&response={response}"),
        None => format!("response={response}"),
    };
    url.set_query(Some(&query));
    Ok(url.into())
}

impl Zoloz {
    pub(in crate::simulator) fn create(
        &self,
        command: ZolozTransaction,
        now: DateTime<Utc>,
    ) -> Result<CreatedTransaction, ControlError> {
        let wrong = |what: &str| Err(ControlError::Invalid(what.to_owned()));
        if !command.aes_bits.is_none_or(|bits| [128, 256].contains(&bits)) {
            return wrong("aes_bits must be 128 or 256");
        }
        let keys = self.keys();
        let client = match &command.client_id {
            Some(id) => keys.client(id),
            None => keys.first(),
        };
        let Some(client) = client else { return wrong("there is no client with this client_id") };
        let id = command.transaction_id.unwrap_or_else(|| self.new_transaction_id(now));
        if id.is_empty() {
            return wrong("transaction_id is empty");
        }
        let biz_id = command.biz_id.unwrap_or_else(|| self.random.hex::<16>());
        let completed = command.completed.unwrap_or(!command.answers.is_empty());
        let transaction = Transaction {
            outcome: Arc::new(command.outcome),
            script: command.answers.into_iter().map(Arc::new).collect(),
            completed_at: completed.then_some(now),
            processing_calls: command.processing_calls,
            gone_code: command.gone_code,
            aes_bits: command.aes_bits,
            h5: H5 {
                complete: command.complete_callback_url,
                interrupt: command.interrupt_callback_url,
                state: command.state,
            },
            ..Transaction::new(&client.id, &biz_id, command.product)
        };
        if !self.transactions.insert(&id, transaction) {
            return Err(ControlError::TransactionExists(id));
        }
        Ok(CreatedTransaction { transaction_id: id, merchant_biz_id: biz_id })
    }

    pub(in crate::simulator) fn complete(
        &self,
        id: &str,
        command: ZolozComplete,
        now: DateTime<Utc>,
    ) -> Result<CompletedZoloz, ControlError> {
        let ZolozComplete { outcome, processing_calls, interrupted, redirect: with_redirect } = command;
        let completed = self.transactions.with(id, |transaction| {
            let chosen = if outcome.is_open() { Arc::clone(&transaction.outcome) } else { Arc::new(outcome) };
            let answer = transaction.product.finished(&chosen, false);
            let good = transaction.product.is_good(&answer);
            // A redirect that cannot be made leaves the transaction as it was.
            let redirect_url =
                with_redirect.then(|| redirect(&transaction.h5, interrupted.as_deref(), good)).transpose()?;
            if interrupted.is_some() {
                transaction.interrupted = interrupted;
                return Ok(CompletedZoloz {
                    transaction_id: id.to_owned(),
                    result_code: None,
                    product_result: None,
                    completed_at: None,
                    redirect_url,
                });
            }
            transaction.outcome = chosen;
            transaction.processing_calls = processing_calls.unwrap_or(transaction.processing_calls);
            // Finishing again changes the outcome; what is deleted when counts from the first time.
            let completed_at = *transaction.completed_at.get_or_insert(now);
            Ok(CompletedZoloz {
                transaction_id: id.to_owned(),
                result_code: Some(answer.code.into_owned()),
                product_result: answer.product_result,
                completed_at: Some(completed_at),
                redirect_url,
            })
        });
        completed.unwrap_or_else(|| Err(ControlError::UnknownTransaction(id.to_owned())))
    }

    pub(in crate::simulator) fn knows(&self, id: &str) -> bool {
        self.transactions.with(id, |_| ()).is_some()
    }

    pub(in crate::simulator) fn view(&self, id: &str) -> Option<ZolozView> {
        self.transactions.with(id, |transaction| {
            let answer = transaction.completed_at.map(|_| transaction.product.finished(&transaction.outcome, false));
            let (result_code, product_result) =
                answer.map_or((None, None), |answer| (Some(answer.code.into_owned()), answer.product_result));
            ZolozView {
                provider: "zoloz",
                transaction_id: id.to_owned(),
                client_id: transaction.client_id.to_string(),
                biz_id: transaction.biz_id.to_string(),
                product: transaction.product,
                result_code,
                product_result,
                completed_at: transaction.completed_at,
                interrupted: transaction.interrupted.clone(),
                deleted: transaction.deleted,
            }
        })
    }
}
