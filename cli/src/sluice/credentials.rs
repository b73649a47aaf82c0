//! The credentials of this user for registries, in the file that docker's CLI also uses (`~/.docker/config.json`).

use std::{
    fs,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE},
};
use serde_json::{Value, json};

use crate::failure::Failure;

/// What Docker's own registry is called in the file.
const HUB: &str = "https://index.docker.io/v1/";

/// The file.
pub struct File {
    path: PathBuf,
    document: Value,
}

impl File {
    /// Nothing where there is none.
    pub fn read() -> Result<Self, Failure> {
        let directory = match std::env::var_os("DOCKER_CONFIG").filter(|path| !path.is_empty()) {
            Some(directory) => PathBuf::from(directory),
            None => {
                let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
                home.map_or_else(|| PathBuf::from("/root"), PathBuf::from)
                    .join(".docker")
            }
        };
        Self::at(directory.join("config.json"))
    }

    fn at(path: PathBuf) -> Result<Self, Failure> {
        let document = match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map_err(|why| Failure::Usage(format!("{} cannot be read: {why}", path.display())))?,
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => json!({}),
            Err(why) => return Err(Failure::Usage(format!("{} cannot be read: {why}", path.display()))),
        };
        Ok(Self { path, document })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes it whole; only its owner reads it.
    pub fn write(&self) -> Result<(), Failure> {
        let failed = |why: std::io::Error| Failure::Usage(format!("cannot write {}: {why}", self.path.display()));
        if let Some(directory) = self.path.parent() {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
            made.map_err(failed)?;
        }
        let new = self.path.with_extension("json.new");
        let mut file = fs::File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)
            .map_err(failed)?;
        let text = serde_json::to_string_pretty(&self.document).map_err(|why| Failure::Usage(why.to_string()))?;
        file.write_all(text.as_bytes()).map_err(failed)?;
        fs::rename(&new, &self.path).map_err(failed)
    }

    /// Writes down who we are to a registry.
    pub fn keep(&mut self, server: &str, username: &str, password: &str, identity: Option<&str>) {
        let entry = match identity {
            Some(token) => json!({ "auth": STANDARD.encode(format!("{username}:")), "identitytoken": token }),
            None => json!({ "auth": STANDARD.encode(format!("{username}:{password}")) }),
        };
        if !self.document["auths"].is_object() {
            self.document["auths"] = json!({});
        }
        self.document["auths"][server] = entry;
    }

    /// False when there was nothing.
    pub fn forget(&mut self, server: &str) -> bool {
        let auths = self.document["auths"].as_object_mut();
        auths.is_some_and(|auths| auths.remove(server).is_some())
    }

    /// What is known for a registry, as the API takes it; secrets that a helper program keeps are asked of it.
    fn login(&self, server: &str) -> Result<Option<Value>, Failure> {
        let helper = self.document["credHelpers"][server]
            .as_str()
            .or(self.document["credsStore"].as_str());
        if let Some(helper) = helper.filter(|helper| !helper.is_empty()) {
            return ask_helper(helper, server);
        }
        let auths = self.document["auths"].as_object();
        let found = auths.and_then(|auths| auths.iter().find(|(name, _)| self::server(Some(name)) == server));
        let Some((_, entry)) = found else { return Ok(None) };
        let mut login = entry.clone();
        login["serveraddress"] = json!(server);
        Ok(Some(login))
    }
}

/// Asks the program `docker-credential-<helper>`. One that knows nothing is no failure.
fn ask_helper(helper: &str, server: &str) -> Result<Option<Value>, Failure> {
    use std::process::{Command, Stdio};
    let program = format!("docker-credential-{helper}");
    let failed = |why: std::io::Error| Failure::Usage(format!("cannot ask {program} for credentials: {why}"));
    let child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = child.map_err(failed)?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(server.as_bytes()).map_err(failed)?;
    }
    let output = child.wait_with_output().map_err(failed)?;
    let told: Option<Value> = serde_json::from_slice(&output.stdout).ok();
    let Some(told) = told.filter(|_| output.status.success()) else {
        return Ok(None);
    };
    let text = |name: &str| told[name].as_str().unwrap_or_default().to_owned();
    Ok(Some(match text("Username").as_str() {
        "<token>" => json!({ "identitytoken": text("Secret"), "serveraddress": server }),
        username => json!({ "username": username, "password": text("Secret"), "serveraddress": server }),
    }))
}

/// The header that says who asks for an image; none for nobody.
pub fn header(name: &str) -> Result<Vec<(&'static str, String)>, Failure> {
    let login = File::read()?.login(&server(Some(domain(name))))?;
    Ok(login
        .map(|login| ("X-Registry-Auth", URL_SAFE.encode(login.to_string())))
        .into_iter()
        .collect())
}

/// The header that says who asks all registries we know.
pub fn all() -> Result<Vec<(&'static str, String)>, Failure> {
    let file = File::read()?;
    let mut known = serde_json::Map::new();
    for name in file.document["auths"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| name)
    {
        if let Some(login) = file.login(&server(Some(name)))? {
            known.insert(name.clone(), login);
        }
    }
    Ok(vec![(
        "X-Registry-Config",
        URL_SAFE.encode(Value::Object(known).to_string()),
    )])
}

/// The registry of an image's name.
fn domain(name: &str) -> &str {
    match name.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        _ => "docker.io",
    }
}

/// A name with everything that Docker adds.
pub fn normal(name: &str) -> String {
    match (domain(name), name.contains('/')) {
        ("docker.io", false) => format!("docker.io/library/{name}"),
        ("docker.io", true) if !name.starts_with("docker.io/") => format!("docker.io/{name}"),
        _ => name.to_owned(),
    }
}

/// A registry as it is written: without scheme and path.
pub fn server(said: Option<&str>) -> String {
    let said = said.unwrap_or("docker.io");
    let bare = said.trim_start_matches("https://").trim_start_matches("http://");
    match bare.split('/').next().unwrap_or_default() {
        "" | "docker.io" | "index.docker.io" | "registry-1.docker.io" => HUB.into(),
        bare => bare.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("sluice-credentials-{}-{name}/config.json", std::process::id()))
    }

    #[test]
    fn what_is_kept_is_found_again_and_forgotten() {
        let path = scratch("kept");
        let mut file = File::at(path.clone()).unwrap();
        file.document["proxies"] = json!({"default": {}});
        file.keep("r.example:5000", "ada", "pass:word", None);
        file.keep(&server(None), "ada", "x", Some("token"));
        file.write().unwrap();
        let mut file = File::at(path.clone()).unwrap();
        assert_eq!(
            file.document["proxies"],
            json!({"default": {}}),
            "what others wrote stays"
        );
        let login = file.login("r.example:5000").unwrap().unwrap();
        assert_eq!(
            STANDARD.decode(login["auth"].as_str().unwrap()).unwrap(),
            b"ada:pass:word"
        );
        assert_eq!(
            file.login(&server(Some("docker.io"))).unwrap().unwrap()["identitytoken"],
            "token"
        );
        assert!(file.forget("r.example:5000") && !file.forget("r.example:5000"));
        assert!(file.login("r.example:5000").unwrap().is_none());
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }

    #[test]
    fn the_registry_is_in_the_name() {
        assert_eq!(domain("nginx"), "docker.io");
        assert_eq!(domain("me/app"), "docker.io");
        assert_eq!(domain("localhost/app"), "localhost");
        assert_eq!(domain("r.example:5000/a/b:c"), "r.example:5000");
        assert_eq!(server(Some("https://r.example:5000/v2/")), "r.example:5000");
        assert_eq!(server(Some("index.docker.io")), HUB);
        assert_eq!(normal("nginx:1"), "docker.io/library/nginx:1");
        assert_eq!(normal("me/app"), "docker.io/me/app");
    }
}
