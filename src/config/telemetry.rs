//! `[telemetry]`: where traces are sent.

use http::{HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::reader::{Outcome, Reader};
use super::schema::{Field, Shape, field};
use super::urls;

pub(super) const FIELDS: &[Field] = &[
    field("otlp_endpoint", Shape::Value),
    field("otlp_headers", Shape::Secrets),
    field("sampling_ratio", Shape::Value),
];

#[derive(Clone, Debug)]
pub struct Telemetry {
    /// With the path that takes traces; `None`: no traces are made.
    pub otlp_endpoint: Option<Url>,
    /// Sent with each request to the collector.
    pub otlp_headers: Vec<(String, SecretString)>,
    /// From 0 to 1.
    pub sampling_ratio: f64,
}

impl Telemetry {
    pub(super) fn read(reader: &mut Reader<'_>) -> Outcome<Self> {
        let otlp_endpoint = reader.parsed("otlp_endpoint", "", |text| match text {
            "" => Ok(None),
            text => urls::collector(text).map(Some),
        });
        let otlp_headers = reader.secrets("otlp_headers", |text| header(text).map(drop).map_err(str::to_owned));
        let sampling_ratio = reader.fraction("sampling_ratio", 1.0);
        let otlp_headers = otlp_headers?.iter().filter_map(|text| header(text.expose_secret()).ok()).collect();
        Ok(Self { otlp_endpoint: otlp_endpoint?, otlp_headers, sampling_ratio: sampling_ratio? })
    }
}

/// `name=value`, as other programs take them for OTLP.
fn header(text: &str) -> Result<(String, SecretString), &'static str> {
    let wrong = "must be a header, written name=value";
    let (name, value) = text.split_once('=').ok_or(wrong)?;
    let (name, value) = (name.trim(), value.trim());
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong)?;
    HeaderValue::from_str(value).map_err(|_| wrong)?;
    Ok((name.to_owned(), SecretString::from(value)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{config, config_with, problems};

    fn ratio(text: &str) -> String {
        config(text).telemetry.sampling_ratio.to_string()
    }

    #[test]
    fn nothing_is_traced_unless_a_collector_is_named() {
        let telemetry = config("").telemetry;
        assert_eq!((telemetry.otlp_endpoint, ratio("")), (None, "1".to_owned()));
    }

    #[test]
    fn traces_go_below_the_collectors_address() {
        for (given, used) in [
            ("http://collector:4318", "http://collector:4318/v1/traces"),
            ("https://otlp.example/base/", "https://otlp.example/base/v1/traces"),
            ("https://otlp.example/v1/traces", "https://otlp.example/v1/traces"),
        ] {
            let telemetry = config(&format!("[telemetry]\notlp_endpoint = '{given}'")).telemetry;
            assert_eq!(telemetry.otlp_endpoint.unwrap().as_str(), used);
        }
        let found = problems("[telemetry]\notlp_endpoint = 'https://user:planted@collector'");
        assert!(found.contains("telemetry.otlp_endpoint") && !found.contains("planted"), "{found}");
    }

    #[test]
    fn headers_are_secret() {
        let telemetry = config("[telemetry]\notlp_headers = ['authorization=Bearer planted=']").telemetry;
        assert_eq!(telemetry.otlp_headers[0].0, "authorization");
        assert_eq!(telemetry.otlp_headers[0].1.expose_secret(), "Bearer planted=");
        assert!(!format!("{telemetry:?}").contains("planted"));
        for wrong in ["planted", "two words=planted", "name=pl\\u0000anted"] {
            let found = problems(&format!("[telemetry]\notlp_headers = [\"{wrong}\"]"));
            assert!(found.contains("item 0 must be a header") && !found.contains("planted"), "{found}");
        }
    }

    #[test]
    fn a_ratio_is_a_number_from_0_to_1() {
        assert_eq!(ratio("[telemetry]\nsampling_ratio = 0.25"), "0.25");
        assert_eq!(ratio("[telemetry]\nsampling_ratio = 0"), "0");
        let given = config_with("", &[("CHECKBACK_TELEMETRY__SAMPLING_RATIO", "0.5")]).telemetry;
        assert_eq!(given.sampling_ratio.to_string(), "0.5");
        for wrong in ["1.1", "-0.1", "nan", "'half'"] {
            let found = problems(&format!("[telemetry]\nsampling_ratio = {wrong}"));
            assert!(found.contains("must be a number from 0 to 1"), "{found}");
        }
    }
}
