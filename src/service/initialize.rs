//! Starting a transaction at the provider and registering it, at most once for each request.
//!
//! The call is not idempotent and may be billed, so it is made once, and a row that says so is committed before it.
//! Whoever sends the same request with the same key is answered from that row. What is known to have made nothing frees
//! its key; what may have made a transaction never leads to a second call. A process that dies in between leaves a row
//! that counts as lost once the call must have ended.

use std::sync::atomic::Ordering;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use secrecy::SecretString;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{error, info, warn};
use url::Url;
use uuid::Uuid;

use super::Service;
use super::account::Account;
use super::collect_result::AccountEffect;
use super::pace::NoSlot;
use crate::domain::{TokenHash, VerificationId};
use crate::provider::initialize::{Callback, InitializeRequest, Initialized, ReturnTo};
use crate::store::{
    Initialization, InitializationEnd, InitializationState, NewInitialization, NewVerification, Registered, Standing,
    StoreError,
};

pub use crate::provider::initialize::{Beside, InitializeError, Prepared, WrongMember};

/// How long one step at the database may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A row that is still unfinished after this belongs to a process that died: waiting for the slot, the call with its
/// time-outs and storing take less.
const UNFINISHED: TimeDelta = TimeDelta::seconds(60);
/// What such a row is lost for.
const UNFINISHED_CODE: &str = "process_ended";

/// Who asked is told after this that the answer could not be stored.
const STORED_WITHIN: Duration = Duration::from_secs(15);
/// And so long storing goes on all the same: what it holds cannot be asked for again.
const STORE_FOR: Duration = Duration::from_mins(10);
const LONGEST_STORE_WAIT: Duration = Duration::from_secs(5);
/// What only frees a key or names a reason is not worth as much.
const SETTLE_FOR: Duration = Duration::from_secs(30);

/// Answers for clients are kept so long, and rows so long.
const KEEP_ANSWERS: TimeDelta = TimeDelta::hours(24);
const KEEP_ROWS: TimeDelta = TimeDelta::days(30);

/// A request whose members were checked. What was not given is `None`.
pub struct Wish {
    pub prepared: Prepared,
    pub merchant_biz_id: Option<String>,
    pub product: Option<String>,
    pub expect_video: Option<bool>,
    pub return_url: Option<Url>,
    pub metadata: Option<Box<RawValue>>,
    /// The request's `Idempotency-Key`.
    pub key: Option<String>,
    /// Of the request, the same for the same request.
    pub request_sha256: [u8; 32],
}

/// What the request led to, now or before.
pub struct Started {
    pub id: VerificationId,
    /// What the client SDK needs, as JSON; `None` once it is forgotten.
    pub client: Option<String>,
    /// False: an earlier request with the same key led to it.
    pub is_new: bool,
}

/// Why there is no new verification.
#[derive(Debug, thiserror::Error)]
pub enum NotStarted {
    #[error("the same request is under way")]
    InProgress,
    #[error("the key stands for another request")]
    KeyReused,
    #[error(transparent)]
    NoSlot(#[from] NoSlot),
    /// There is no transaction, and the key is free.
    #[error(transparent)]
    Provider(InitializeError),
    /// There may be a transaction, and nobody knows its id.
    #[error("the answer to the call at {at} was lost ({code})")]
    Lost { code: String, at: DateTime<Utc>, merchant_biz_id: String },
    /// There is a transaction; storing it goes on.
    #[error("the new transaction could not be stored yet")]
    Unstored { transaction_id: String, merchant_biz_id: String },
}

impl From<StoreError> for NotStarted {
    fn from(error: StoreError) -> Self {
        Self::NoSlot(NoSlot::Store(error))
    }
}

type Answer = Result<Started, NotStarted>;

/// What the client SDK needs.
#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "the names of the API")]
struct Client<'a> {
    transaction_id: &'a str,
    transaction_url: Option<&'a str>,
    protocol: Option<&'a str>,
    client_cfg: Option<&'a str>,
}

/// What is known of a call however it ends.
struct Ticket {
    id: Uuid,
    started_at: DateTime<Utc>,
    merchant_biz_id: String,
}

impl Ticket {
    fn lost(&self, code: &str) -> NotStarted {
        NotStarted::Lost { code: code.to_owned(), at: self.started_at, merchant_biz_id: self.merchant_biz_id.clone() }
    }
}

/// A call that is about to be made, with what its answer will be stored as.
struct Call {
    ticket: Ticket,
    request: InitializeRequest,
    verification: NewVerification,
}

impl Account {
    /// Checks the members that the merchant gives for a new transaction.
    pub fn prepare(&self, members: Map<String, Value>, beside: Beside<'_>) -> Result<Prepared, Vec<WrongMember>> {
        self.provider().prepare(members, beside)
    }
}

impl Service {
    /// Starts a transaction and registers it. Must run to its end, whether or not somebody still waits for `answer`:
    /// a call that was made must be accounted for.
    pub async fn initialize(&self, account: &Account, wish: Wish, answer: oneshot::Sender<Answer>) {
        let (call, standing) = match self.begin(account, wish).await {
            Ok(begun) => begun,
            // Whoever asked may have gone away.
            Err(NoCall::Known(known)) => return drop(answer.send(known)),
            Err(NoCall::Unsent { id, error }) => {
                drop(answer.send(Err(error)));
                return self.settle(id, InitializationEnd::Refused("not_sent")).await;
            }
        };
        let result = account.provider().initialize(&call.request).await;
        // The result must not wait for a database that hangs.
        drop(tokio::time::timeout(PATIENCE, self.tell_account(account, standing, effect(&result))).await);
        match result {
            Ok(made) => self.keep(account, call, made, answer).await,
            Err(error) => self.give_up(account, &call.ticket, error, answer).await,
        }
    }

    /// The call made nothing, or nobody knows what it made.
    async fn give_up(
        &self,
        account: &Account,
        ticket: &Ticket,
        error: InitializeError,
        answer: oneshot::Sender<Answer>,
    ) {
        Self::report(account, ticket.id, &error);
        let code = error.code().to_owned();
        let (end, error) = if matches!(error, InitializeError::Lost { .. }) {
            (InitializationEnd::Lost(&code), ticket.lost(&code))
        } else {
            (InitializationEnd::Refused(&code), NotStarted::Provider(error))
        };
        // First the row, then the answer: who repeats at once meets it.
        let settled = self.try_to_settle(ticket.id, end).await;
        drop(answer.send(Err(error)));
        if settled.is_err() {
            self.settle(ticket.id, end).await;
        }
    }

    /// Everything before the call: the key, a slot, the row.
    async fn begin(&self, account: &Account, wish: Wish) -> Result<(Call, Standing), NoCall> {
        if let Some(known) = self.known(account, &wish).await? {
            return Err(NoCall::Known(known));
        }
        let (slot, standing) =
            self.stand_in_line(account).await.map_err(|error| NoCall::Known(Err(NotStarted::NoSlot(error))))?;
        let now = self.clock.now();
        let verification_id = VerificationId(self.entropy.id(now));
        let merchant_biz_id = wish.merchant_biz_id.clone().unwrap_or_else(|| self.entropy.hex32());
        let return_to = self.return_to(account, verification_id, wish.return_url.as_ref()).await?;
        let new = NewInitialization {
            id: self.entropy.id(now),
            account: account.name.clone(),
            key: wish.key.clone(),
            request_sha256: wish.request_sha256,
            merchant_biz_id: merchant_biz_id.clone(),
            started_at: now,
        };
        let is_mine = match within(self.store.start_initialization(&new)).await {
            Ok(is_mine) => is_mine,
            // It may have been written all the same.
            Err(error) => return Err(NoCall::Unsent { id: new.id, error: error.into() }),
        };
        if !is_mine {
            if standing == Standing::Probed {
                within(self.store.return_probe(&account.name, now)).await?;
            }
            let known = self.known(account, &wish).await?;
            return Err(NoCall::Known(known.unwrap_or(Err(NotStarted::InProgress))));
        }
        if tokio::time::timeout(PATIENCE, self.wait_for_slot(account, slot)).await.is_err() {
            return Err(NoCall::Unsent { id: new.id, error: StoreError::timed_out().into() });
        }
        let callback = self.callback(account);
        let verification = NewVerification {
            id: verification_id,
            account: account.name.clone(),
            // Known after the call.
            transaction_id: String::new(),
            merchant_biz_id: Some(merchant_biz_id.clone()),
            fresh_merchant_biz_id: merchant_biz_id.clone(),
            product: wish.product.or(wish.prepared.product),
            expect_video: Some(wish.expect_video.unwrap_or(wish.prepared.expect_video)),
            return_url: wish.return_url.map(String::from),
            callback_token: callback.as_ref().map(|(_, hash)| *hash),
            metadata: wish.metadata,
            registered_at: now,
            due_at: account.first_poll_at(now),
            initialized: true,
        };
        let request = InitializeRequest {
            members: wish.prepared.members,
            merchant_biz_id,
            callback: callback.map(|(callback, _)| callback),
            return_to,
        };
        let ticket = Ticket { id: new.id, started_at: now, merchant_biz_id: new.merchant_biz_id };
        Ok((Call { ticket, request, verification }, standing))
    }

    /// The answer to a request whose key was used before.
    async fn known(&self, account: &Account, wish: &Wish) -> Result<Option<Answer>, StoreError> {
        let Some(key) = &wish.key else { return Ok(None) };
        let Some(found) = within(self.store.initialization(&account.name, key)).await? else { return Ok(None) };
        Ok(Some(self.repeated(found, &wish.request_sha256)))
    }

    fn repeated(&self, found: Initialization, request_sha256: &[u8; 32]) -> Answer {
        if found.request_sha256 != request_sha256 {
            return Err(NotStarted::KeyReused);
        }
        let lost = |code| NotStarted::Lost { code, at: found.started_at, merchant_biz_id: found.merchant_biz_id };
        match found.state {
            InitializationState::Registered { id, client } => Ok(Started { id, client, is_new: false }),
            InitializationState::Lost { code } => Err(lost(code)),
            InitializationState::Started if self.clock.now() - found.started_at > UNFINISHED => {
                Err(lost(UNFINISHED_CODE.to_owned()))
            }
            InitializationState::Started => Err(NotStarted::InProgress),
        }
    }

    fn callback(&self, account: &Account) -> Option<(Callback, TokenHash)> {
        let Some(url) = account.starting.callback_url.clone() else {
            if !account.starting.was_said.swap(true, Ordering::Relaxed) {
                info!(
                    account = account.name,
                    "transactions are started without a CallbackUrl, so results come with the polls: set \
                     server.public_url to an https address where the provider reaches the public listener"
                );
            }
            return None;
        };
        let token = self.entropy.hex32();
        let hash = TokenHash::of(&token);
        Some((Callback { url, token: SecretString::from(token) }, hash))
    }

    async fn return_to(
        &self,
        account: &Account,
        id: VerificationId,
        return_url: Option<&Url>,
    ) -> Result<Option<ReturnTo>, StoreError> {
        let Some(return_url) = return_url else { return Ok(None) };
        let Some(url) = account.starting.returns_url.clone() else {
            return Ok(Some(ReturnTo::Merchant(return_url.clone())));
        };
        let state = within(self.return_key()).await?.state(&account.name, id);
        Ok(Some(ReturnTo::Here { url, state }))
    }

    /// Stores what the call made. The answer cannot be had again, so this is tried for long.
    async fn keep(&self, account: &Account, call: Call, made: Initialized, answer: oneshot::Sender<Answer>) {
        let Call { ticket, verification, .. } = call;
        let mut answer = Some(answer);
        let client = Client {
            transaction_id: &made.transaction_id,
            transaction_url: made.transaction_url.as_deref(),
            protocol: made.protocol.as_deref(),
            client_cfg: made.client_cfg.as_deref(),
        };
        let client = serde_json::to_string(&client).expect("texts are JSON");
        let new = NewVerification { transaction_id: made.transaction_id.clone(), ..verification };
        let unstored = || NotStarted::Unstored {
            transaction_id: made.transaction_id.clone(),
            merchant_biz_id: ticket.merchant_biz_id.clone(),
        };
        let begun = Instant::now();
        let mut wait = Duration::from_millis(20);
        loop {
            match within(self.store.register_initialized(ticket.id, &new, &client)).await {
                Ok(Registered::New { id, hinted }) => {
                    metrics::counter!("checkback_registrations_total", "account" => account.name.clone()).increment(1);
                    if hinted {
                        self.wakes.hints();
                    }
                    return self.kept(account, id, client, answer);
                }
                // A try before this one was committed after all.
                Ok(Registered::Same(id)) => return self.kept(account, id, client, answer),
                Ok(Registered::Conflict { id, .. }) => {
                    error!(initialization.id = %ticket.id, verification.id = %id, account = account.name,
                        "a new transaction is registered already");
                    count(account, "lost");
                    if let Some(answer) = answer {
                        drop(answer.send(Err(ticket.lost("transaction_registered"))));
                    }
                    return self.settle(ticket.id, InitializationEnd::Lost("transaction_registered")).await;
                }
                Err(error) if error.is_unavailable() && begun.elapsed() < STORE_FOR => {
                    if begun.elapsed() >= STORED_WITHIN
                        && let Some(answer) = answer.take()
                    {
                        error!(initialization.id = %ticket.id, account = account.name,
                            error = &error as &dyn std::error::Error,
                            "a new transaction could not be stored; that is tried for ten minutes");
                        drop(answer.send(Err(unstored())));
                    }
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(LONGEST_STORE_WAIT);
                }
                Err(error) => {
                    error!(initialization.id = %ticket.id, account = account.name,
                        error = &error as &dyn std::error::Error, "a new transaction could not be stored");
                    count(account, "unstored");
                    if let Some(answer) = answer {
                        drop(answer.send(Err(unstored())));
                    }
                    return;
                }
            }
        }
    }

    fn kept(&self, account: &Account, id: VerificationId, client: String, answer: Option<oneshot::Sender<Answer>>) {
        count(account, "registered");
        // Its first poll may be sooner than what the account's loop sleeps for.
        self.wakes.account(&account.name);
        if let Some(answer) = answer {
            drop(answer.send(Ok(Started { id, client: Some(client), is_new: true })));
        }
    }

    fn report(account: &Account, id: Uuid, error: &InitializeError) {
        let outcome = match error {
            InitializeError::Refused { .. } => "refused",
            InitializeError::Throttled { .. } => "throttled",
            InitializeError::Account { .. } => "account_failing",
            InitializeError::NotSent { .. } => "not_sent",
            InitializeError::Lost { .. } => "lost",
        };
        count(account, outcome);
        if matches!(error, InitializeError::Lost { .. }) {
            error!(initialization.id = %id, account = account.name, code = error.code(),
                "the answer to Initialize was lost: the provider may have made a transaction that nobody knows");
        } else {
            warn!(initialization.id = %id, account = account.name, code = error.code(), "no transaction was made: {error}");
        }
    }

    async fn try_to_settle(&self, id: Uuid, end: InitializationEnd<'_>) -> Result<(), StoreError> {
        within(self.store.end_initialization(id, end, self.clock.now())).await
    }

    /// Stores how a call ended. Where that fails for long, the row counts as lost.
    async fn settle(&self, id: Uuid, end: InitializationEnd<'_>) {
        let begun = Instant::now();
        while let Err(error) = self.try_to_settle(id, end).await {
            if !error.is_unavailable() || begun.elapsed() > SETTLE_FOR {
                return warn!(initialization.id = %id, error = &error as &dyn std::error::Error,
                    "how a call ended could not be stored; it counts as lost");
            }
            tokio::time::sleep(LONGEST_STORE_WAIT / 5).await;
        }
    }

    /// Marks what dead processes left, and forgets what is old.
    pub async fn tidy_initializations(&self) -> Result<(), StoreError> {
        let now = self.clock.now();
        for account in self.store.lose_unfinished_initializations(now - UNFINISHED, UNFINISHED_CODE, now).await? {
            metrics::counter!("checkback_initializations_total", "account" => account.clone(), "outcome" => "lost")
                .increment(1);
            error!(account, "a process ended during Initialize: the provider may have made a transaction");
        }
        self.store.forget_initializations(now - KEEP_ANSWERS, now - KEEP_ROWS).await?;
        Ok(())
    }
}

/// Why no call is made.
enum NoCall {
    Known(Answer),
    /// There may be a row that says otherwise.
    Unsent {
        id: Uuid,
        error: NotStarted,
    },
}

impl From<StoreError> for NoCall {
    fn from(error: StoreError) -> Self {
        Self::Known(Err(error.into()))
    }
}

fn effect(result: &Result<Initialized, InitializeError>) -> AccountEffect {
    match result {
        Ok(_) | Err(InitializeError::Refused { .. }) => AccountEffect::Well,
        Err(InitializeError::Throttled { retry_after, .. }) => AccountEffect::Throttled { retry_after: *retry_after },
        Err(InitializeError::Account { trouble, code }) => {
            AccountEffect::Failing { trouble: *trouble, code: code.clone() }
        }
        Err(InitializeError::NotSent { .. } | InitializeError::Lost { .. }) => AccountEffect::Unknown,
    }
}

fn count(account: &Account, outcome: &'static str) {
    metrics::counter!("checkback_initializations_total", "account" => account.name.clone(), "outcome" => outcome)
        .increment(1);
}

/// A database that hangs must not hold up whoever waits.
async fn within<T>(asked: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err(StoreError::timed_out()))
}
