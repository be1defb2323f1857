//! An account at a provider: its endpoint, the clocks, and whether a signed call is served. One call about nobody.

use chrono::{DateTime, TimeDelta, Utc};
use http::{HeaderMap, Method};
use secrecy::ExposeSecret;
use std::time::Duration;
use url::Url;

use super::{Finding, told};
use crate::clock::Clock;
use crate::config::{self, AccountKind, AlibabaAccount, Environment, Loaded, Origin, REGIONS};
use crate::domain::{ProviderError, Trouble};
use crate::entropy::Entropy;
use crate::provider::alibaba::endpoint::{Endpoint, Network};
use crate::provider::http::{HttpClient, HttpError, HttpSettings};
use crate::rotation::Providers;

/// Enough to know.
const PATIENCE: HttpSettings =
    HttpSettings { connect: Duration::from_secs(5), total: Duration::from_secs(10), max_body: 1 << 20 };
/// Alibaba refuses what is signed further off (its page on signatures); ZOLOZ does not say.
const REFUSED: TimeDelta = TimeDelta::minutes(15);
/// A clock that is synchronised is not off by more.
const SYNCHRONISED: TimeDelta = TimeDelta::seconds(30);

pub async fn look(loaded: &Loaded, environment: &Environment, name: &str, account: &config::Account) -> Vec<Finding> {
    let check = format!("accounts.{name}");
    let mut found = callback_token(&check, account);
    let endpoint = match &account.kind {
        AccountKind::Alibaba(settings) => {
            if let Some(finding) = other_region(loaded, &check, settings) {
                // What it would answer says nothing about the right one.
                found.push(finding);
                return found;
            }
            match endpoint_of(settings) {
                Ok(url) => url,
                Err(finding) => {
                    found.push(Finding::fault(check, finding, "correct region, network or endpoint"));
                    return found;
                }
            }
        }
        AccountKind::Zoloz(settings) => settings.endpoint.clone(),
    };
    let client = match HttpClient::new(PATIENCE) {
        Ok(client) => client,
        Err(error) => {
            found.push(Finding::fault(check, told(&error), "install the system's root certificates"));
            return found;
        }
    };
    let clock = Clock::system(TimeDelta::zero());
    match provider_time(&client, &endpoint, &clock).await {
        Err(error) => {
            found.push(unreachable(&check, account, &endpoint, &error));
            return found;
        }
        Ok(Some(difference)) => found.extend(skew(&check, difference)),
        Ok(None) => {}
    }
    found.push(credentials(environment, &check, name, account, clock).await);
    found
}

fn endpoint_of(settings: &AlibabaAccount) -> Result<Url, String> {
    if let Some(url) = &settings.endpoint {
        return Ok(url.clone());
    }
    let network = match settings.network {
        config::Network::Public => Network::Public,
        config::Network::Vpc => Network::Vpc,
    };
    let endpoint = Endpoint::of_region(&settings.region, network).map_err(|error| error.to_string())?;
    Ok(endpoint.base().clone())
}

/// Data does not cross regions, so a transaction of one is unknown in another: everything would end as unresolvable.
fn other_region(loaded: &Loaded, check: &str, settings: &AlibabaAccount) -> Option<Finding> {
    let host = settings.endpoint.as_ref()?.host_str()?;
    let key = format!("{check}.region");
    // The default says nothing about what was meant.
    if matches!(loaded.origin(&key), None | Some(Origin::Default)) {
        return None;
    }
    let is_of = |region: &str| {
        [Network::Public, Network::Vpc]
            .into_iter()
            .any(|network| Endpoint::of_region(region, network).is_ok_and(|endpoint| endpoint.host_header() == host))
    };
    let theirs = REGIONS.iter().find(|region| is_of(region.name))?;
    (theirs.name != settings.region).then(|| {
        Finding::fault(
            check,
            format!("the endpoint is the one of {}, and region says {}", theirs.name, settings.region),
            "ask the region where the app starts its transactions: remove endpoint, or correct it; another region \
             knows none of them",
        )
    })
}

/// How far the provider's clock is ahead of this machine's; `None` where it does not say.
async fn provider_time(client: &HttpClient, endpoint: &Url, clock: &Clock) -> Result<Option<TimeDelta>, HttpError> {
    let before = clock.now();
    let answer = client.send(Method::GET, endpoint.clone(), HeaderMap::new(), bytes::Bytes::new()).await?;
    let between = before + (clock.now() - before) / 2;
    let theirs = answer.header("date").and_then(|date| DateTime::parse_from_rfc2822(date).ok());
    Ok(theirs.map(|theirs| theirs.with_timezone(&Utc) - between))
}

fn unreachable(check: &str, account: &config::Account, endpoint: &Url, error: &HttpError) -> Finding {
    let is_vpc = matches!(&account.kind, AccountKind::Alibaba(settings)
        if settings.endpoint.is_none() && settings.network == config::Network::Vpc);
    let remedy = if is_vpc {
        "network = \"vpc\" works only on machines inside the same region of Alibaba Cloud: set \"public\", or correct region"
    } else {
        "check region and endpoint, name resolution and firewall; calls go there directly, through no proxy"
    };
    Finding::fault(
        check,
        format!("{} cannot be reached: {}", endpoint.origin().ascii_serialization(), told(error)),
        remedy,
    )
}

fn skew(check: &str, difference: TimeDelta) -> Option<Finding> {
    let (seconds, remedy) = (difference.num_seconds(), "synchronise this machine's clock (NTP, chrony)");
    let says = format!(
        "this machine's clock is {} s {} the provider's",
        seconds.abs(),
        if seconds > 0 { "behind" } else { "ahead of" }
    );
    let check = format!("{check} clock");
    if difference.abs() >= REFUSED {
        Some(Finding::fault(check, format!("{says}: signed calls are refused"), remedy))
    } else if difference.abs() > SYNCHRONISED {
        Some(Finding::warning(check, says, remedy))
    } else {
        None
    }
}

async fn credentials(
    environment: &Environment,
    check: &str,
    name: &str,
    account: &config::Account,
    clock: Clock,
) -> Finding {
    let provider = Providers::new(environment.clone(), clock, Entropy::system())
        .and_then(|mut providers| providers.build(name, account));
    let provider = match provider {
        Ok(provider) => provider,
        Err(error) => return Finding::fault(check, format!("{error:#}"), "correct this key of the account"),
    };
    let mut answer = provider.probe().await;
    // The adapter has just taken over the provider's clock; about that there is a line of its own.
    if matches!(&answer, Err(ProviderError::Unavailable { code, .. }) if code.starts_with("InvalidTimeStamp")) {
        answer = provider.probe().await;
    }
    match answer {
        Ok(()) => Finding::ok(check, "the provider serves a signed call"),
        Err(ProviderError::Account { trouble, code }) => {
            Finding::fault(check, format!("{}, the provider answers {code}", in_short(trouble)), trouble.remedy())
        }
        Err(ProviderError::Throttled { code, .. }) => Finding::warning(
            check,
            format!("the provider throttles ({code}), so whether it serves the account is not known"),
            "run it again later; if it stays, lower qps, or see who else uses the account",
        ),
        Err(error @ (ProviderError::Unavailable { .. } | ProviderError::Refused { .. })) => Finding::fault(
            check,
            error.to_string(),
            "if it stays, check endpoint and keys; the provider, or something on the way to it, is at fault",
        ),
    }
}

fn in_short(trouble: Trouble) -> &'static str {
    match trouble {
        Trouble::NoCredentials => "there is no key to sign with",
        Trouble::BadKey => "the key is not known",
        Trouble::BadSignature => "the secret is wrong",
        Trouble::NoPermission => "the key has no permission",
        Trouble::NotActivated => "the service is not activated, or a bill is overdue",
        Trouble::ClockSkew => "the clock is off",
        Trouble::Configuration => "the call is not one that this endpoint knows",
        Trouble::Unreachable => "it cannot be reached",
    }
}

/// The account-wide token guards callbacks of everybody who has no token of his own.
fn callback_token(check: &str, account: &config::Account) -> Vec<Finding> {
    let Some(token) = &account.callback_token else { return Vec::new() };
    let Some(why) = weakness(token.expose_secret()) else { return Vec::new() };
    vec![Finding::fault(
        format!("{check}.callback_token"),
        format!("it can be guessed: {why}"),
        "make another one with `openssl rand -hex 32`, or give each verification its own when it is registered",
    )]
}

/// How a token can be guessed; `None`: not by what is seen of it.
fn weakness(token: &str) -> Option<&'static str> {
    const FEWEST: usize = 8;
    const WORDS: [&str; 9] =
        ["changeme", "secret", "password", "passwort", "token", "callback", "example", "checkback", "qwerty"];
    let mut letters: Vec<char> = token.chars().collect();
    let steps = |wanted: i64| {
        letters
            .windows(2)
            .filter(|pair| i64::from(u32::from(pair[1])) - i64::from(u32::from(pair[0])) == wanted)
            .count()
    };
    if steps(1).max(steps(-1)) * 2 > letters.len() {
        return Some("its characters are a row");
    }
    let lower = token.to_lowercase();
    if WORDS.iter().any(|word| lower.contains(word)) {
        return Some("it is made of a word");
    }
    let length = letters.len();
    if (1..=length / 2).any(|period| (period..length).all(|at| letters[at] == letters[at - period])) {
        return Some("it repeats itself");
    }
    letters.sort_unstable();
    letters.dedup();
    (letters.len() < FEWEST).then_some("it has only a few different characters")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_that_can_be_guessed_are_known_and_random_ones_pass() {
        for (token, why) in [
            ("aaaaaaaaaaaaaaaa", "repeats"),
            ("4f9a1c7e4f9a1c7e4f9a1c7e", "repeats"),
            ("abcdefghijklmnopqrst", "row"),
            ("01234567890123456789", "row"),
            ("please-changeme-now", "word"),
            ("My-Callback-Token-17", "word"),
            ("1121221112121211", "few"),
        ] {
            assert!(weakness(token).is_some_and(|said| said.contains(why)), "{token}: {:?}", weakness(token));
        }
        for token in ["7ca5c68d869344ea8eeb30cdfd544544", "q7Jt0vXcR2mLw9Za", "9f86d081884c7d659a2feaa0c55ad015"] {
            assert_eq!(weakness(token), None, "{token}");
        }
    }

    #[test]
    fn a_clock_is_a_fault_where_calls_are_refused() {
        let level = |seconds| skew("a", TimeDelta::seconds(seconds)).map(|finding| finding.level);
        assert_eq!((level(3), level(-3)), (None, None));
        assert_eq!((level(60), level(-60)), (Some(super::super::Level::Warning), Some(super::super::Level::Warning)));
        let said = skew("a", TimeDelta::minutes(20)).unwrap();
        assert_eq!((said.level, said.says.contains("1200 s behind")), (super::super::Level::Fault, true));
    }
}
