//! Short ways to load a configuration in tests. The file is called `test.toml`.

use super::{Config, Environment, Loaded, Problems, load_text};

pub(super) fn try_load(text: &str, environment: &[(&str, &str)]) -> Result<Loaded, Problems> {
    load_text("test.toml", text, &Environment::from_pairs(environment.iter().copied()))
}

pub(super) fn config(text: &str) -> Config {
    config_with(text, &[])
}

pub(super) fn config_with(text: &str, environment: &[(&str, &str)]) -> Config {
    loaded_with(text, environment).config
}

pub(super) fn loaded_with(text: &str, environment: &[(&str, &str)]) -> Loaded {
    try_load(text, environment).unwrap_or_else(|problems| panic!("{problems}"))
}

pub(super) fn problems(text: &str) -> String {
    problems_with(text, &[])
}

pub(super) fn problems_with(text: &str, environment: &[(&str, &str)]) -> String {
    match try_load(text, environment) {
        Ok(_) => panic!("no problem was found"),
        Err(problems) => problems.to_string(),
    }
}
