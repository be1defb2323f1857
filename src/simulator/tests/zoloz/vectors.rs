//! The published vectors from the provider's side: requests that must be let in and opened, answers as they are signed.

use secrecy::SecretString;

use super::*;

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../../../tests/vectors/zoloz.json")).unwrap()
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}"))
}

fn body(value: &Value) -> String {
    match value.get("generator") {
        None => text(value, "utf8").to_owned(),
        Some(generator) => {
            let count = usize::try_from(generator["count"].as_u64().unwrap()).unwrap();
            format!(
                "{}{}{}",
                text(generator, "prefix"),
                text(generator, "unit").repeat(count),
                text(generator, "suffix")
            )
        }
    }
}

fn cases(vectors: &Value, kinds: &[&str], least: usize) -> Vec<Value> {
    let all = vectors["cases"].as_array().unwrap();
    let found: Vec<_> = all.iter().filter(|case| kinds.contains(&text(case, "kind"))).cloned().collect();
    assert!(found.len() >= least, "{} cases of {kinds:?}", found.len());
    found
}

/// In any case of letters.
fn header<'v>(headers: &'v Value, name: &str) -> Option<&'v str> {
    headers.as_object().unwrap().iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).and_then(|(_, v)| v.as_str())
}

#[test]
fn every_request_is_signed_verified_and_opened_as_published() {
    let vectors = vectors();
    let private = |name: &str| PrivateKey::read(text(&vectors["keys"][name], "private_key_pkcs8_pem")).unwrap();
    for case in cases(&vectors, &["rsa_request_sign", "rsa_request_encrypt_sign"], 7) {
        let (id, input, expected) = (text(&case, "id"), &case["input"], &case["expected"]);
        let plain = body(&input["plaintext_body"]);
        let key = input["aes_key_hex"].as_str().map(|key| hex::decode(key).unwrap());
        let wire = match &key {
            Some(key) => {
                let wire = cipher::encrypt(key, plain.clone().into_bytes()).unwrap();
                assert_eq!(wire, text(&expected["wire_body"], "utf8"), "{id}");
                assert_eq!(cipher::decrypt(key, wire.as_bytes()).unwrap(), plain.as_bytes(), "{id}");
                let wrapped = sign::read_encrypt(text(expected, "encrypt_header_sample")).unwrap();
                assert_eq!(private("zoloz").unwrap_key(&wrapped).as_ref(), Some(key), "{id}");
                let own = private("zoloz").public().unwrap().wrap_key(key).unwrap();
                assert_eq!(private("zoloz").unwrap_key(&own).as_ref(), Some(key), "{id}");
                wire
            }
            None => plain,
        };
        let content =
            sign::content(text(input, "path"), text(input, "client_id"), text(input, "request_time"), wire.as_bytes());
        if let Some(published) = expected["content_to_sign"]["utf8"].as_str() {
            assert_eq!(String::from_utf8(content.clone()).unwrap(), published, "{id}");
        }
        let signer = private(text(input, "signing_key"));
        let published = header(&expected["headers"], "Signature").unwrap();
        assert_eq!(sign::signature_header(&signer.sign(&content).unwrap()), published, "{id}");
        let signature = sign::read_signature(published).unwrap();
        assert!(signer.public().unwrap().verifies(&content, &signature), "{id}");
        assert!(!private("other").public().unwrap().verifies(&content, &signature), "{id}");
    }
}

#[test]
fn every_answer_is_judged_as_published() {
    let vectors = vectors();
    for case in cases(&vectors, &["rsa_response_verify"], 9) {
        let (id, input, expected) = (text(&case, "id"), &case["input"], &case["expected"]);
        let headers = &input["response_headers"];
        let wire = body(&input["wire_body"]);
        let time = header(headers, "Response-Time").unwrap();
        let content = sign::content(text(input, "path"), text(input, "client_id"), time, wire.as_bytes());
        let key = |role: &str, half: &str| text(&vectors["keys"][text(input, role)], half).to_owned();
        let verifying = PublicKey::read(&key("verify_key", "public_key_spki_der_b64")).unwrap();
        let signature = header(headers, "Signature").and_then(sign::read_signature);
        let accepted = signature.is_some_and(|signature| verifying.verifies(&content, &signature));
        assert_eq!(accepted, expected["accept"] == true, "{id}");
        if let Some(plain) = expected["plaintext_utf8"].as_str() {
            let decrypting = PrivateKey::read(&key("decrypt_key", "private_key_pkcs8_pem")).unwrap();
            let wrapped = sign::read_encrypt(header(headers, "Encrypt").unwrap()).unwrap();
            let key = decrypting.unwrap_key(&wrapped).unwrap();
            assert_eq!(cipher::decrypt(&key, wire.as_bytes()).unwrap(), plain.as_bytes(), "{id}");
            // And the way back, which is this side's own.
            assert_eq!(cipher::encrypt(&key, plain.to_owned().into_bytes()).unwrap(), wire, "{id}");
        }
    }
}

#[test]
fn every_message_under_an_access_key_is_as_published() {
    let vectors = vectors();
    for case in cases(&vectors, &["aksk_request_sign", "aksk_response_verify"], 3) {
        let (id, input, expected) = (text(&case, "id"), &case["input"], &case["expected"]);
        let is_request = text(&case, "kind") == "aksk_request_sign";
        let (headers, time, wire) = if is_request {
            (&expected["headers"], text(input, "request_time"), body(&input["plaintext_body"]))
        } else {
            let headers = &input["response_headers"];
            (headers, header(headers, "Response-Time").unwrap(), body(&input["wire_body"]))
        };
        let content = sign::content(text(input, "path"), text(input, "client_id"), time, wire.as_bytes());
        let signature = header(headers, "Signature").unwrap();
        let right = expected["accept"] != false;
        for secret in [text(input, "secret_key").to_owned(), format!("{}=", text(input, "secret_key"))] {
            let key = sign::hmac_key(&secret).unwrap();
            assert_eq!(sign::hmac_verifies(&key, &content, signature), right, "{id}");
            assert_eq!(sign::hmac_signature(&key, &content) == signature, right, "{id}");
        }
    }
}

/// The published requests, sent as they are to a simulator that has the published keys.
#[tokio::test]
async fn published_requests_are_let_in_over_http() {
    let vectors = vectors();
    let keys = &vectors["keys"];
    let aksk = cases(&vectors, &["aksk_request_sign"], 1).remove(0)["input"].clone();
    let client = |id: &str| {
        json!({"client_id": id, "merchant_private_key": keys["merchant"]["private_key_pkcs8_pem"],
            "zoloz_private_key": keys["zoloz"]["private_key_pkcs8_pem"],
            "access_keys": [{"access_key": aksk["access_key"], "secret_key": aksk["secret_key"]}]})
    };
    let requests = cases(&vectors, &["rsa_request_sign", "rsa_request_encrypt_sign", "aksk_request_sign"], 8);
    let ids: std::collections::BTreeSet<_> = requests.iter().map(|case| text(&case["input"], "client_id")).collect();
    let file = json!({"clients": ids.into_iter().map(client).collect::<Vec<_>>()});
    let file = SecretString::from(file.to_string());
    let zoloz_keys = Some(crate::simulator::ZolozKeys::parse(file.expose_secret()).unwrap());
    let sim = Sim::with(Settings { zoloz_keys, ..Settings::default() }).await;
    for case in requests {
        let (id, input, expected) = (text(&case, "id"), &case["input"], &case["expected"]);
        let at = sign::read_time(text(input, "request_time")).unwrap();
        sim.simulator.move_clock(crate::simulator::ClockMove::Set(at));
        let plain = body(&input["plaintext_body"]);
        let encrypted = expected["encrypt_header_sample"].as_str();
        let wire = if encrypted.is_some() { text(&expected["wire_body"], "utf8").to_owned() } else { plain.clone() };
        let mut request = sim.client.post(format!("http://{}{}", sim.host, text(input, "path"))).body(wire);
        for (name, value) in expected["headers"].as_object().unwrap() {
            request = request.header(name, value.as_str().unwrap());
        }
        if let Some(encrypt) = encrypted {
            request = request.header("Encrypt", encrypt);
        }
        let mode = if id == "zoloz-s16" { Mode::AkSk } else { Mode::Rsa };
        let merchant = Merchant { client_id: text(input, "client_id").to_owned(), ..Merchant::of(&sim.simulator) };
        let answer = merchant.reply(request, text(input, "path"), mode).await;
        assert!(answer.signed, "{id}");
        assert_eq!(answer.encrypted.is_some(), encrypted.is_some(), "{id}");
        // Let in: what is refused now is the business of the operation.
        let code = match text(input, "path") {
            AUTHENTICATION_TEST => "SUCCESS",
            CHECK_RESULT => "INVALID_ARGUMENT",
            _ => "NO_INTERFACE_DEF",
        };
        assert_eq!(answer.code(), code, "{id}");
    }
}
