//! Who signs: OpenPGP keys of a real `gpg`, key pairs of a real `cosign`.

use crate::command::Tool;
use crate::temporary;
use serde_json::json;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// When keys are made that have expired since.
const LONG_AGO: &str = "20200101T000000!";

/// OpenPGP keys, and `gpg`'s home for them.
#[derive(Debug)]
pub struct Keyring(TempDir);

/// A key of a keyring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// 40 hexadecimal digits, as gpg writes them: in upper case.
    pub fingerprint: String,
    faked_time: Option<&'static str>,
}

impl Default for Keyring {
    fn default() -> Self {
        // Not below a long path: sockets of gpg's agent are in it.
        Self(tempfile::Builder::new().prefix("gpg").tempdir_in("/tmp").expect("a directory"))
    }
}

impl Keyring {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// A new key that signs and never expires.
    pub fn key(&self, user: &str) -> Key {
        self.generate(user, "ed25519", "never", None)
    }

    /// A new RSA key.
    pub fn rsa_key(&self, user: &str) -> Key {
        self.generate(user, "rsa2048", "never", None)
    }

    /// A key that was valid for a year, long ago. What it signs was signed then.
    pub fn expired_key(&self, user: &str) -> Key {
        self.generate(user, "ed25519", "1y", Some(LONG_AGO))
    }

    /// A key made long ago that doesn't expire. What it signs was signed then.
    pub fn old_key(&self, user: &str) -> Key {
        self.generate(user, "ed25519", "never", Some(LONG_AGO))
    }

    /// A key whose owner has revoked it, after it has signed what it signs.
    pub fn revoke(&self, key: &Key) {
        let file = format!("openpgp-revocs.d/{}.rev", key.fingerprint);
        let text = fs::read_to_string(self.0.path().join(file)).unwrap();
        // The colon is there so that nobody imports it by mistake.
        self.gpg(key.faked_time).with(["--import"]).stdin(text.replace(":-----", "-----")).run();
    }

    /// The public key, armored.
    pub fn export(&self, key: &Key) -> Vec<u8> {
        self.gpg(None).with(["--armor", "--export", &key.fingerprint]).run()
    }

    /// The public key in a file.
    pub fn export_to(&self, key: &Key, file: &Path) -> PathBuf {
        fs::write(file, self.export(key)).unwrap();
        file.to_owned()
    }

    /// Signs a file: `FILE.asc` is the armored detached signature.
    pub fn sign(&self, key: &Key, file: &Path) -> PathBuf {
        self.sign_with(key, file, &[])
    }

    /// The same with options of gpg.
    pub fn sign_with(&self, key: &Key, file: &Path, options: &[&str]) -> PathBuf {
        let mut signature = file.as_os_str().to_owned();
        signature.push(".asc");
        self.gpg(key.faked_time)
            .with(["--yes", "--armor", "--detach-sign", "--local-user", &key.fingerprint])
            .with(options)
            .option("--output", &signature)
            .with([file])
            .run();
        signature.into()
    }

    /// Simple signing: the message that says that `name` is the image with this manifest.
    pub fn sign_image(&self, key: &Key, name: &str, digest: &str) -> Vec<u8> {
        self.sign_message(key, &simple_signing(name, digest))
    }

    /// An OpenPGP signed message of any content.
    pub fn sign_message(&self, key: &Key, content: &str) -> Vec<u8> {
        self.sign_message_with(key, content, &[])
    }

    /// The same with options of gpg.
    pub fn sign_message_with(&self, key: &Key, content: &str, options: &[&str]) -> Vec<u8> {
        self.gpg(key.faked_time)
            .with(options)
            .with(["--sign", "--local-user", &key.fingerprint])
            .stdin(content)
            .run()
    }

    /// From now on the key may not sign any more, its owner says.
    pub fn forbid_signing(&self, key: &Key) {
        // `S` switches what the key is for, `Q` ends that question.
        self.gpg(key.faked_time)
            .with(["--no-batch", "--no-tty", "--command-fd", "0", "--edit-key", &key.fingerprint])
            .stdin("change-usage\nS\nQ\nsave\n")
            .run();
    }

    fn generate(
        &self,
        user: &str,
        algorithm: &str,
        expires: &str,
        faked_time: Option<&'static str>,
    ) -> Key {
        self.gpg(faked_time).with(["--quick-generate-key", user, algorithm, "sign", expires]).run();
        let listed = self.gpg(None).with(["--with-colons", "--list-keys", user]).text();
        let line = listed.lines().find_map(|line| line.strip_prefix("fpr:::::::::"));
        let fingerprint = line.expect("a fingerprint").trim_end_matches(':').to_owned();
        Key { fingerprint, faked_time }
    }

    fn gpg(&self, faked_time: Option<&str>) -> Tool {
        let gpg = Tool::new("gpg").variable("GNUPGHOME", self.0.path());
        let gpg = gpg.with(["--batch", "--quiet", "--passphrase", "", "--trust-model", "always"]);
        match faked_time {
            Some(time) => gpg.with(["--faked-system-time", time]),
            None => gpg,
        }
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Keyring {
    fn drop(&mut self) {
        let _ = std::process::Command::new("gpgconf")
            .args(["--kill", "all"])
            .env("GNUPGHOME", self.0.path())
            .status();
    }
}

/// The JSON of a simple signature (containers-signature(5)).
pub fn simple_signing(name: &str, digest: &str) -> String {
    let payload = json!({
        "critical": {
            "type": "atomic container signature",
            "image": {"docker-manifest-digest": digest},
            "identity": {"docker-reference": name},
        },
        "optional": {"creator": "tests", "timestamp": 1_577_900_000},
    });
    payload.to_string()
}

/// A key pair of cosign's.
#[derive(Debug)]
pub struct CosignKey(TempDir);

impl Default for CosignKey {
    fn default() -> Self {
        let directory = temporary();
        cosign().with(["generate-key-pair"]).within(directory.path()).run();
        Self(directory)
    }
}

impl CosignKey {
    /// A new one.
    pub fn new() -> Self {
        Self::default()
    }

    /// The public key's file.
    pub fn public(&self) -> PathBuf {
        self.0.path().join("cosign.pub")
    }

    /// Signs an image of a registry, as a layer of the image tagged `sha256-HEX.sig`. `image` is
    /// what the signature says that the image is called.
    pub fn sign(&self, image: &str, options: &[&str]) {
        self.call("sign").with(options).with([image]).run();
    }

    /// Signs an image of a registry with a bundle, which refers to it: what `cosign sign` of a later
    /// version than Debian's does.
    pub fn sign_with_bundle(&self, image: &str) {
        self.attest(image, "https://sigstore.dev/cosign/sign/v1");
    }

    /// Says something else about an image, in a bundle, too.
    pub fn attest(&self, image: &str, what: &str) {
        let predicate = self.0.path().join("predicate.json");
        fs::write(&predicate, "{}").unwrap();
        self.call("attest")
            .with(["--new-bundle-format", "--type", what])
            .option("--predicate", &predicate)
            .with([image])
            .run();
    }

    fn call(&self, verb: &str) -> Tool {
        cosign()
            .with([verb, "--tlog-upload=false", "--allow-insecure-registry", "--yes"])
            .option("--key", self.0.path().join("cosign.key"))
    }
}

fn cosign() -> Tool {
    Tool::new("cosign").variable("COSIGN_PASSWORD", OsStr::new(""))
}
