//! Where the keys come from and who sees them.

use super::*;
use crate::simulator::ZolozKeys;

#[tokio::test]
async fn keys_survive_the_file_and_serve_two_clients() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    let generated = ZolozKeys::generate().unwrap();
    generated.write(&path).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let mut file: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let mut second = file["clients"][0].clone();
    second["client_id"] = json!("2188000000000002");
    file["clients"].as_array_mut().unwrap().push(second);
    std::fs::write(&path, file.to_string()).unwrap();

    let keys = ZolozKeys::read(&path).unwrap();
    let sim = Sim::with(Settings { zoloz_keys: Some(keys), ..Settings::default() }).await;
    let merchant = Merchant::of(&sim.simulator);
    let id = finished(&sim, &json!({}));
    assert_eq!(merchant.check(&sim, &id).await.code(), "SUCCESS");
    let other = Merchant { client_id: "2188000000000002".into(), ..Merchant::of(&sim.simulator) };
    assert_eq!(other.check(&sim, &id).await.result(), result(true, "F", "INVALID_ARGUMENT"), "it is not theirs");
    let deleted = other.post(&sim, DELETE, &json!({"transactionId": id})).await;
    assert_eq!(deleted.code(), "TRANSACTION_RECORD_AUTHORITY_ERROR");
}

#[test]
fn a_file_is_toml_too_and_needs_no_merchant_private_key() {
    let (merchant, zoloz) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
    let (public, private) = (merchant.public().unwrap().to_pem(), zoloz.to_pem());
    // The Base64 alone is a form of a key as well.
    let bare: String = private.lines().filter(|line| !line.starts_with('-')).collect();
    let text = format!(
        "[[clients]]\nclient_id = \"c\"\nmerchant_public_key = \"\"\"\n{public}\"\"\"\nzoloz_private_key = \"{bare}\"\n\
         access_keys = [{{ access_key = \"ak\", secret_key = \"-_8-\" }}]\n"
    );
    let credentials = ZolozKeys::parse(&text).unwrap().credentials().remove(0);
    assert!(credentials.merchant_private_key.is_none());
    assert_eq!(credentials.zoloz_public_key, zoloz.public().unwrap().to_pem());
    assert_eq!((&*credentials.client_id, &*credentials.access_keys[0].0), ("c", "ak"));
}

#[test]
fn a_file_that_cannot_be_used_is_named_without_its_keys() {
    let (merchant, zoloz) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
    let (public, private) = (merchant.public().unwrap().to_pem(), zoloz.to_pem());
    for (client, named) in [
        (json!({"client_id": "c", "zoloz_private_key": private}), "merchant_public_key is missing"),
        (
            json!({"client_id": "c", "zoloz_private_key": "SECRETKEY", "merchant_public_key": public}),
            "zoloz_private_key",
        ),
        (json!({"client_id": "c", "zoloz_private_key": private, "merchant_public_key": "AAAA"}), "merchant_public_key"),
        (
            json!({"client_id": "c", "zoloz_private_key": private, "merchant_public_key": public, "secret": "SECRETKEY"}),
            "secret",
        ),
        (
            json!({"client_id": "c", "zoloz_private_key": private, "merchant_public_key": public,
                "merchant_private_key": private}),
            "does not belong",
        ),
        (
            json!({"client_id": "c", "zoloz_private_key": private, "merchant_public_key": public,
                "zoloz_public_key": public}),
            "does not belong",
        ),
        (
            json!({"client_id": "c", "zoloz_private_key": private, "merchant_public_key": public,
                "access_keys": [{"access_key": "ak", "secret_key": "SECRETKEY!"}]}),
            "secret_key of ak",
        ),
    ] {
        let error = format!("{:#}", ZolozKeys::parse(&json!({"clients": [client]}).to_string()).unwrap_err());
        assert!(error.contains(named), "{error}");
        assert!(!error.contains("SECRETKEY") && !error.contains("MII"), "{error}");
    }
    for (text, named) in [("{\"clients\":[]}", "no clients"), ("clients = \"SECRETKEY", "string"), ("{", "EOF")] {
        let error = format!("{:#}", ZolozKeys::parse(text).unwrap_err());
        assert!(error.contains(named) && !error.contains("SECRETKEY"), "{error}");
    }
    let missing = format!("{:#}", ZolozKeys::read(std::path::Path::new("nowhere.toml")).unwrap_err());
    assert!(missing.contains("nowhere.toml"), "{missing}");
}

#[tokio::test]
async fn keys_for_merchants_are_shown_and_those_of_the_provider_are_not() {
    let (sim, merchant) = set_up().await;
    let shown = sim.control("GET", "/_sim/zoloz-keys", "").await;
    let client = shown.json()["clients"][0].clone();
    assert_eq!(client["client_id"], merchant.client_id);
    assert_eq!(client["merchant_private_key"], merchant.own.to_pem());
    assert_eq!(client["zoloz_public_key"], merchant.zoloz.to_pem());
    assert_eq!(client["access_keys"][0]["secret_key"], merchant.secret);
    assert!(client.get("zoloz_private_key").is_none());
}

#[tokio::test]
async fn keys_are_not_shown_to_other_machines() {
    use axum::http::Request;
    use tower::ServiceExt as _;
    let simulator = Simulator::new(&Settings::default()).unwrap();
    for peer in ["10.0.0.1:1", "[2001:db8::1]:1"] {
        let mut request = Request::get("/_sim/zoloz-keys").body(axum::body::Body::empty()).unwrap();
        request.extensions_mut().insert(crate::simulator::serve::Peer(peer.parse().unwrap()));
        assert_eq!(simulator.router().oneshot(request).await.unwrap().status(), 403);
    }
    let unknown = Request::get("/_sim/zoloz-keys").body(axum::body::Body::empty()).unwrap();
    assert_eq!(simulator.router().oneshot(unknown).await.unwrap().status(), 403);
}

#[test]
fn debug_output_shows_no_key() {
    let simulator = Simulator::new(&Settings::default()).unwrap();
    let keys = simulator.zoloz_keys();
    let credentials = keys.credentials().remove(0);
    let settings = Settings { zoloz_keys: Some(keys.clone()), ..Settings::default() };
    let key = PrivateKey::generate().unwrap();
    let text = format!("{keys:?} {credentials:?} {settings:?} {key:?}");
    assert!(!text.contains("PRIVATE") && !text.contains(credentials.access_keys[0].1.expose_secret()), "{text}");
}
