//! The two files in which people keep keys: the profiles of the provider's command line (JSON), and the ini file of
//! its SDKs. Read anew at each fetch.
//!
//! Errors name file, profile and kind, never a value.

use std::collections::HashMap;
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::chain::{Chain, Fetched, Lasts, Miss};
use super::sts::{self, Oidc, Role};
use super::{Credentials, KeyParts, ecs};

const CLI_MODES: &str = "AK, StsToken, RamRoleArn, ChainableRamRoleArn, EcsRamRole and OIDC";
const INI_TYPES: &str = "access_key, sts, ram_role_arn, ecs_ram_role and oidc_role_arn";
/// A profile that leans on another that leans on another: more is a circle.
const MOST_PROFILES: usize = 5;

/// What a profile says about where its key comes from.
enum Source {
    Key(Credentials),
    EcsRole(Option<String>),
    Oidc(Role, Oidc),
    Role(Role, Box<Source>),
}

impl Source {
    async fn fetch(self, chain: &Chain) -> Result<Fetched, Miss> {
        // The file says that this is so: what is missing then is a mistake, not another set-up.
        let fetched = match self {
            Self::Key(credentials) => Ok(Fetched { credentials, lasts: Lasts::WhileInFile }),
            Self::EcsRole(role) => {
                let role = role.as_deref().or(chain.settings.metadata_role.as_deref());
                ecs::fetch(chain, role).await
            }
            Self::Oidc(role, oidc) => sts::with_oidc(chain, &role, &oidc).await,
            Self::Role(role, source) => {
                let key = Box::pin(source.fetch(chain)).await?;
                sts::with_key(chain, &role, key.credentials).await
            }
        };
        fetched.map_err(|miss| Miss { applies: true, ..miss })
    }
}

/// `~/.aliyun/config.json`: the profile of `ALIBABA_CLOUD_PROFILE`, else the current one.
pub(super) async fn cli_profile(chain: &Chain) -> Result<Fetched, Miss> {
    let settings = &chain.settings;
    if settings.cli_profile_disabled {
        return Err(Miss::not_set("ALIBABA_CLOUD_CLI_PROFILE_DISABLED is true"));
    }
    let home = settings.home.as_deref().ok_or_else(|| Miss::not_set("HOME is not set"))?;
    let file = home.join(".aliyun").join("config.json");
    let text = read(&file).await?;
    cli_source(&text, settings.profile.as_deref(), &file)?.fetch(chain).await
}

/// `ALIBABA_CLOUD_CREDENTIALS_FILE`, else `~/.alibabacloud/credentials.ini` or `~/.alibabacloud/credentials`: the
/// section of `ALIBABA_CLOUD_PROFILE`, else `default`.
pub(super) async fn ini_file(chain: &Chain) -> Result<Fetched, Miss> {
    let settings = &chain.settings;
    let (file, text) = match (&settings.credentials_file, &settings.home) {
        (Some(file), _) => (file.clone(), read(file).await.map_err(|miss| Miss { applies: true, ..miss })?),
        (None, Some(home)) => {
            // The SDKs differ in the name.
            let folder = home.join(".alibabacloud");
            let named = folder.join("credentials.ini");
            match read(&named).await {
                Ok(text) => (named, text),
                Err(miss) if miss.applies => return Err(miss),
                Err(_) => {
                    let plain = folder.join("credentials");
                    let text = read(&plain).await.map_err(|miss| {
                        let neither = format!("neither {} nor {} is there", named.display(), plain.display());
                        if miss.applies { miss } else { Miss::not_set(neither) }
                    })?;
                    (plain, text)
                }
            }
        }
        (None, None) => return Err(Miss::not_set("neither ALIBABA_CLOUD_CREDENTIALS_FILE nor HOME is set")),
    };
    ini_source(&text, settings.profile.as_deref().unwrap_or("default"), &file)?.fetch(chain).await
}

async fn read(file: &Path) -> Result<String, Miss> {
    tokio::fs::read_to_string(file).await.map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Miss::not_set(format!("{} is not there", file.display())),
        kind => Miss::failed(format!("{} cannot be read: {kind}", file.display())),
    })
}

#[derive(Deserialize)]
struct CliFile {
    #[serde(default, deserialize_with = "given")]
    current: Option<String>,
    /// Only the one that is asked for is read: another may be of a kind that is unknown here.
    #[serde(default)]
    profiles: Vec<Value>,
}

/// Members that no mode of ours reads are passed over.
#[derive(Default, Deserialize)]
#[serde(default)]
struct CliProfile {
    mode: String,
    #[serde(deserialize_with = "given")]
    access_key_id: Option<String>,
    access_key_secret: Option<SecretString>,
    sts_token: Option<SecretString>,
    #[serde(deserialize_with = "given")]
    ram_role_name: Option<String>,
    #[serde(deserialize_with = "given")]
    ram_role_arn: Option<String>,
    #[serde(deserialize_with = "given")]
    ram_session_name: Option<String>,
    #[serde(deserialize_with = "given")]
    role_session_name: Option<String>,
    expired_seconds: Option<u64>,
    #[serde(deserialize_with = "given")]
    policy: Option<String>,
    #[serde(deserialize_with = "given")]
    external_id: Option<String>,
    #[serde(deserialize_with = "given")]
    sts_region: Option<String>,
    enable_vpc: Option<bool>,
    #[serde(deserialize_with = "given")]
    source_profile: Option<String>,
    #[serde(deserialize_with = "given")]
    oidc_provider_arn: Option<String>,
    #[serde(deserialize_with = "given")]
    oidc_token_file: Option<String>,
}

/// The command line writes what is not set as empty text.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty()))
}

fn cli_source(text: &str, wanted: Option<&str>, file: &Path) -> Result<Source, Miss> {
    let failed = |reason: &dyn fmt::Display| Miss::failed(format!("{}: {reason}", file.display()));
    // The parser's own words quote what it found.
    let mut found: CliFile = serde_json::from_str(text)
        .map_err(|error| failed(&format!("line {} is not what the command line writes", error.line())))?;
    let name = wanted.map(str::to_owned).or(found.current.take());
    let mut name = name.ok_or_else(|| failed(&"it names no current profile, and ALIBABA_CLOUD_PROFILE is not set"))?;
    // From the role wanted to the key that it leans on.
    let mut roles = Vec::new();
    let mut source = loop {
        let profile = found
            .profiles
            .iter()
            .position(|profile| profile.get("name").and_then(Value::as_str).is_some_and(|found| found == name));
        let profile = profile.ok_or_else(|| failed(&format!("there is no profile {name:?}")))?;
        let problem = |reason: &dyn fmt::Display| failed(&format!("profile {name:?}: {reason}"));
        let mut profile: CliProfile = serde_json::from_value(found.profiles[profile].clone())
            .map_err(|_| problem(&"it is not what the command line writes"))?;
        match &*profile.mode {
            "AK" => break profile.key(false).map_err(|reason| problem(&reason))?,
            "StsToken" => break profile.key(true).map_err(|reason| problem(&reason))?,
            "RamRoleArn" => {
                let key = profile.key(false).map_err(|reason| problem(&reason))?;
                roles.push(profile.role());
                break key;
            }
            "ChainableRamRoleArn" => {
                let next = profile.source_profile.take().ok_or_else(|| problem(&"it names no source_profile"))?;
                if roles.len() == MOST_PROFILES {
                    return Err(problem(&"too many profiles lean on each other"));
                }
                roles.push(profile.role());
                name = next;
            }
            "EcsRamRole" => break Source::EcsRole(profile.ram_role_name.take()),
            "OIDC" => {
                let oidc = Oidc {
                    provider_arn: profile.oidc_provider_arn.take(),
                    token_file: profile.oidc_token_file.take().map(PathBuf::from),
                };
                break Source::Oidc(profile.role(), oidc);
            }
            mode => {
                return Err(problem(&format!("its mode {mode:?} is not supported here, only {CLI_MODES} are")));
            }
        }
    };
    for role in roles.into_iter().rev() {
        source = Source::Role(role, Box::new(source));
    }
    Ok(source)
}

impl CliProfile {
    fn key(&mut self, temporary: bool) -> Result<Source, String> {
        let parts = KeyParts {
            access_key_id: self.access_key_id.take(),
            access_key_secret: self.access_key_secret.take(),
            security_token: self.sts_token.take().filter(|_| temporary),
        };
        whole_key(parts, temporary.then_some("sts_token"))
    }

    fn role(self) -> Role {
        Role {
            arn: self.ram_role_arn,
            session_name: self.role_session_name.or(self.ram_session_name),
            seconds: self.expired_seconds,
            policy: self.policy,
            external_id: self.external_id,
            sts_region: self.sts_region,
            sts_vpc: self.enable_vpc,
        }
    }
}

/// `token` names the token where there must be one.
fn whole_key(parts: KeyParts, token: Option<&str>) -> Result<Source, String> {
    let key = parts.complete("it", ["access_key_id", "access_key_secret"]).map_err(|error| error.to_string())?;
    let key = key.ok_or("access_key_id and access_key_secret are missing")?;
    match token {
        Some(name) if key.security_token().is_none() => Err(format!("{name} is missing")),
        _ => Ok(Source::Key(key)),
    }
}

fn ini_source(text: &str, wanted: &str, file: &Path) -> Result<Source, Miss> {
    let failed = |reason: &dyn fmt::Display| Miss::failed(format!("{}: {reason}", file.display()));
    let mut section = section(text, wanted).ok_or_else(|| failed(&format!("there is no section {wanted:?}")))?;
    let problem = |reason: String| failed(&format!("section {wanted:?}: {reason}"));
    let mut take = |name: &str| section.remove(name).filter(|value| !value.is_empty());
    let kind = take("type");
    let mut parts = KeyParts {
        access_key_id: take("access_key_id"),
        access_key_secret: take("access_key_secret").map(Into::into),
        security_token: None,
    };
    let role = Role {
        arn: take("role_arn"),
        session_name: take("role_session_name"),
        policy: take("policy"),
        ..Role::default()
    };
    match kind.as_deref() {
        Some("access_key") => whole_key(parts, None).map_err(problem),
        Some("sts") => {
            parts.security_token = take("security_token").map(Into::into);
            whole_key(parts, Some("security_token")).map_err(problem)
        }
        Some("ram_role_arn") => Ok(Source::Role(role, Box::new(whole_key(parts, None).map_err(problem)?))),
        Some("ecs_ram_role") => Ok(Source::EcsRole(take("role_name"))),
        Some("oidc_role_arn") => {
            let token_file = take("oidc_token_file_path").map(PathBuf::from);
            Ok(Source::Oidc(role, Oidc { provider_arn: take("oidc_provider_arn"), token_file }))
        }
        Some(kind) => Err(problem(format!("its type {kind:?} is not supported here, only {INI_TYPES} are"))),
        None => Err(problem("type is missing".to_owned())),
    }
}

/// The options of one section, read as the SDKs do: names in lower case, `=` or `:`, `#` ends a value.
fn section(text: &str, wanted: &str) -> Option<HashMap<String, String>> {
    let mut inside = false;
    let mut found = None;
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            inside = name == wanted;
            if inside {
                found.get_or_insert_with(HashMap::new);
            }
        } else if let (true, Some(options), Some((name, value))) = (inside, &mut found, line.split_once(['=', ':'])) {
            let value = value.split('#').next().unwrap_or_default().trim();
            options.insert(name.trim().to_lowercase(), value.to_owned());
        }
    }
    found
}
