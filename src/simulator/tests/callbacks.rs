//! What arrives at the merchant.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::{Method, StatusCode, Uri};

use super::*;
use crate::simulator::{CallbackMethod, CallbackSpelling, ControlError, SendCallbacks};

/// Remembers each request as `METHOD target body`.
struct Receiver {
    url: String,
    got: Arc<Mutex<Vec<String>>>,
}

impl Receiver {
    async fn start(status: StatusCode) -> Self {
        let got = Arc::new(Mutex::new(Vec::new()));
        let list = Arc::clone(&got);
        let router = Router::new().fallback(async move |method: Method, uri: Uri, body: String| {
            list.lock().unwrap().push(format!("{method} {uri} {body}").trim_end().to_owned());
            status
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/cb?shop=1", listener.local_addr().unwrap());
        #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, got }
    }

    fn got(&self) -> Vec<String> {
        std::mem::take(&mut self.got.lock().unwrap())
    }
}

fn waiting() -> Complete {
    Complete { wait: true, ..Complete::default() }
}

async fn set_up() -> (Sim, Receiver, String) {
    let (sim, receiver) = (Sim::start().await, Receiver::start(StatusCode::OK).await);
    let id = sim.created(CreateTransaction {
        transaction_id: Some("t1".into()),
        callback_url: Some(receiver.url.clone()),
        callback_token: Some("tok+en".into()),
        ..Default::default()
    });
    (sim, receiver, id)
}

#[tokio::test]
async fn a_completion_calls_back_once_with_token_and_outcome() {
    let (sim, receiver, id) = set_up().await;
    let done = sim.simulator.complete(&id, Complete { passed: Some("N".into()), ..waiting() }).await.unwrap();
    assert_eq!((done.callbacks, done.callback_statuses), (1, vec![200]));
    assert_eq!(receiver.got(), ["GET /cb?shop=1&callbackToken=tok%2Ben&transactionId=t1&passed=N&subCode=204"]);
    let line = sim.simulator.calls().pop().unwrap();
    assert!(line.ends_with(" Callback t1 200 Sent"), "{line}");
}

#[tokio::test]
async fn the_url_and_token_of_initialize_are_used() {
    let (sim, receiver) = (Sim::start().await, Receiver::start(StatusCode::OK).await);
    let more = [("CallbackUrl", receiver.url.as_str()), ("CallbackToken", "t0")];
    let id = sim.rpc(&sim.initialize(&more)).await.json()["Result"]["TransactionId"].as_str().unwrap().to_owned();
    sim.simulator.complete(&id, waiting()).await.unwrap();
    let wanted = format!("GET /cb?shop=1&callbackToken=t0&transactionId={id}&passed=Y&subCode=200");
    assert_eq!(receiver.got(), [wanted]);
}

#[tokio::test]
async fn callbacks_can_be_lost_doubled_and_forged() {
    let (sim, receiver, id) = set_up().await;
    let lost = sim.simulator.complete(&id, Complete { callbacks: Some(0), ..waiting() }).await.unwrap();
    assert_eq!((lost.callbacks, receiver.got().len()), (0, 0));
    assert_eq!(sim.result(&id).await.status, 200);
    sim.simulator.complete(&id, Complete { callbacks: Some(3), ..waiting() }).await.unwrap();
    assert_eq!(receiver.got().len(), 3);
    let forged = Complete { callback_token: Some("wrong".into()), ..waiting() };
    sim.simulator.complete(&id, forged).await.unwrap();
    assert!(receiver.got()[0].contains("callbackToken=wrong&"));
    sim.simulator.complete(&id, Complete { callback_token: Some("".into()), ..waiting() }).await.unwrap();
    assert_eq!(receiver.got(), ["GET /cb?shop=1&transactionId=t1&passed=Y&subCode=200"]);
}

#[tokio::test]
async fn callbacks_can_be_forms_and_spelled_otherwise() {
    let (sim, receiver, id) = set_up().await;
    let form = Complete {
        callback_method: CallbackMethod::Post,
        callback_spelling: CallbackSpelling::Prose,
        callback_delay_ms: 1,
        ..waiting()
    };
    sim.simulator.complete(&id, form).await.unwrap();
    let wanted = "POST /cb?shop=1 CallbackToken=tok%2Ben&transactionId=t1&passed=Y&subcode=200";
    assert_eq!(receiver.got(), [wanted]);
}

#[tokio::test]
async fn a_callback_can_come_alone_and_for_a_transaction_nobody_knows() {
    let (sim, receiver, id) = set_up().await;
    let alone =
        SendCallbacks { passed: Some("N".into()), sub_code: Some("205".into()), wait: true, ..Default::default() };
    assert_eq!(sim.simulator.send_callbacks(&id, alone.clone()).await.unwrap(), [200]);
    assert_eq!(receiver.got(), ["GET /cb?shop=1&callbackToken=tok%2Ben&transactionId=t1&passed=N&subCode=205"]);
    assert_eq!(sim.result(&id).await.status, 404, "nothing was completed");
    assert!(matches!(sim.simulator.send_callbacks("nobody", alone).await, Err(ControlError::Invalid(_))));
    let unknown = SendCallbacks { callback_url: Some(receiver.url.clone()), wait: true, ..Default::default() };
    sim.simulator.send_callbacks("nobody", unknown).await.unwrap();
    assert_eq!(receiver.got(), ["GET /cb?shop=1&transactionId=nobody&passed=Y&subCode=200"]);
}

#[tokio::test]
async fn how_a_callback_went_is_recorded() {
    let sim = Sim::start().await;
    let refusing = Receiver::start(StatusCode::SERVICE_UNAVAILABLE).await;
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}/", listener.local_addr().unwrap())
    };
    for (url, status, code) in [(refusing.url.clone(), 503, "Sent"), (closed, 0, "NotReached")] {
        let id = sim.created(CreateTransaction { callback_url: Some(url), ..Default::default() });
        let done = sim.simulator.complete(&id, waiting()).await.unwrap();
        assert_eq!(done.callback_statuses, [status]);
        assert_eq!(sim.simulator.call_log().last().unwrap().code, code);
    }
}

#[tokio::test]
async fn a_callback_that_cannot_be_sent_leaves_the_transaction_as_it_was() {
    let sim = Sim::start().await;
    let id = sim.created(CreateTransaction::default());
    let nowhere = Complete { callbacks: Some(1), ..Complete::default() };
    assert!(sim.simulator.complete(&id, nowhere).await.is_err());
    assert_eq!(sim.result(&id).await.status, 404);
}
