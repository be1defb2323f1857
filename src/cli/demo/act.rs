//! One case: what the person, the provider and the merchant do in it.

use secrecy::SecretString;
use serde_json::json;

use super::board::Board;
use super::cases::{Case, Process, Story};
use super::merchant::{Merchant, Registration};
use super::stage::Stage;
use crate::simulator::{
    Complete, CreateTransaction, SendCallbacks, ZolozComplete, ZolozOutcome, ZolozProduct, ZolozTransaction,
};

pub struct Act<'a> {
    pub stage: &'a Stage,
    pub merchant: &'a Merchant,
    pub board: &'a Board,
    pub case: &'a Case,
    /// The place of the case.
    pub n: usize,
}

impl Act<'_> {
    pub async fn play(&self) -> anyhow::Result<()> {
        let heard = match &self.case.process {
            Process::Alibaba { sub_code, not_completed_calls, pending_calls } => {
                let transaction = CreateTransaction {
                    sub_code: sub_code.map(str::to_owned),
                    not_completed_calls: *not_completed_calls,
                    pending_calls: *pending_calls,
                    doc_video: self.case.video,
                    ..CreateTransaction::default()
                };
                self.at_alibaba(transaction).await?
            }
            Process::Zoloz { product, outcome, processing_calls } => {
                self.at_zoloz(*product, outcome, *processing_calls).await?
            }
        };
        self.board.see(self.n, |seen| seen.heard = heard);
        Ok(())
    }

    /// Gives how the service answered the callbacks.
    async fn at_alibaba(&self, transaction: CreateTransaction) -> anyhow::Result<Vec<u16>> {
        let Self { stage, case, .. } = *self;
        let simulator = &stage.simulator;
        let url = stage.callback_url(case.account);
        let token = stage.entropy.hex32();
        let register = async |transaction_id: &str, merchant_biz_id: Option<&str>, callback_token: Option<&str>| {
            self.register(Registration {
                account: case.account,
                transaction_id,
                merchant_biz_id,
                callback_token,
                product: "FACE_LIVENESS",
                expect_video: case.video,
                case: case.name,
            })
            .await
        };
        if case.story == Story::Initialized {
            let wish = json!({"ProductCode": "FACE_LIVENESS", "MetaInfo": "{}", "MerchantUserId": "u-1"});
            let transaction_id = self.start(wish).await?;
            let done = Complete { wait: true, ..Complete::default() };
            return Ok(simulator.complete(&transaction_id, done).await?.callback_statuses);
        }
        if case.story == Story::Unknown {
            let transaction_id = format!("unknown{}", stage.entropy.hex32());
            register(&transaction_id, None, Some(&token)).await?;
            let callback = SendCallbacks {
                callback_url: Some(url),
                callback_token: Some(token.into()),
                wait: true,
                ..SendCallbacks::default()
            };
            return Ok(simulator.send_callbacks(&transaction_id, callback).await?);
        }
        let (token, registered) = match case.story {
            Story::NoToken => (None, None),
            // Before the registration only the token of the account can be known.
            Story::CallbackEarly => (Some(&stage.account_token), Some(&*token)),
            _ => (Some(&token), Some(&*token)),
        };
        let created = simulator.create(CreateTransaction {
            callback_url: Some(url),
            callback_token: token.map(|token| SecretString::from(token.as_str())),
            ..transaction
        })?;
        let (transaction_id, biz_id) = (&*created.transaction_id, Some(&*created.merchant_biz_id));
        self.arm(transaction_id)?;
        if case.story != Story::CallbackEarly {
            register(transaction_id, biz_id, registered).await?;
        }
        let copies = match case.story {
            Story::Abandoned => return Ok(Vec::new()),
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
        if case.story == Story::CallbackEarly {
            register(transaction_id, biz_id, registered).await?;
        }
        Ok(answers)
    }

    /// Gives how the service answered the browser or the app.
    async fn at_zoloz(
        &self,
        product: ZolozProduct,
        outcome: &ZolozOutcome,
        processing_calls: u32,
    ) -> anyhow::Result<Vec<u16>> {
        let Self { stage, merchant, case, .. } = *self;
        let simulator = &stage.simulator;
        if case.story == Story::Initialized {
            let transaction_id = self.start(json!({"metaInfo": "MOB_H5", "userId": "u-1"})).await?;
            let done = ZolozComplete {
                outcome: outcome.clone(),
                processing_calls: Some(processing_calls),
                redirect: true,
                ..ZolozComplete::default()
            };
            let back = simulator.complete_zoloz(&transaction_id, done)?.redirect_url.unwrap_or_default();
            return Ok(vec![merchant.browse(&back).await?]);
        }
        let created = simulator.create_zoloz(ZolozTransaction {
            product,
            outcome: outcome.clone(),
            processing_calls,
            ..ZolozTransaction::default()
        })?;
        let transaction_id = &*created.transaction_id;
        self.arm(transaction_id)?;
        let id = self
            .register(Registration {
                account: case.account,
                transaction_id,
                merchant_biz_id: Some(&created.merchant_biz_id),
                callback_token: None,
                product: name(product),
                expect_video: false,
                case: case.name,
            })
            .await?;
        if case.story == Story::Abandoned {
            return Ok(Vec::new());
        }
        simulator.complete_zoloz(transaction_id, ZolozComplete::default())?;
        Ok(vec![merchant.collect(&id).await?])
    }

    /// The case's fault waits for checks of its transaction.
    fn arm(&self, transaction_id: &str) -> anyhow::Result<()> {
        if let Some(fault) = &self.case.fault {
            let mut fault = fault.clone();
            fault.transaction_id = Some(transaction_id.to_owned());
            self.stage.simulator.add_fault(fault)?;
        }
        Ok(())
    }

    /// Gives the id of the verification.
    async fn register(&self, registration: Registration<'_>) -> anyhow::Result<String> {
        let id = self.merchant.register(&registration).await?;
        self.board.see(self.n, |seen| seen.id = Some(id.clone()));
        Ok(id)
    }

    /// Gives the id of the transaction.
    async fn start(&self, initialize: serde_json::Value) -> anyhow::Result<String> {
        let started = self.merchant.start(self.case.account, initialize, self.case.name).await?;
        self.board.see(self.n, |seen| seen.id = Some(started.id));
        Ok(started.transaction_id)
    }
}

/// As registrations name it.
fn name(product: ZolozProduct) -> &'static str {
    match product {
        ZolozProduct::Connect => "CONNECT",
        ZolozProduct::RealId => "REALID",
        ZolozProduct::FaceCapture => "FACECAPTURE",
        ZolozProduct::IdRecognition => "IDRECOGNITION",
        ZolozProduct::VideoVerify => "VIDEOVERIFY",
        ZolozProduct::UapConnect => "CONNECTV2",
    }
}
