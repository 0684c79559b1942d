//! The policy's file, read strictly.

use super::{KeySource, Policy, Requirement, SignedIdentity, scope};
use crate::strict::{JsonError, Members, Value};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use sandbox_image::Text;
use std::{collections::BTreeMap, path::PathBuf};

pub(super) fn policy(document: &[u8]) -> Result<Policy, JsonError> {
    let mut members = Members::of(Value::parse(document, Policy::MAX)?, "")?;
    let default = requirements(members.required("default")?, "default", "")?;
    let mut transports = BTreeMap::new();
    if let Some(value) = members.take("transports") {
        for (transport, scopes) in Members::of(value, "transports")?.into_entries() {
            let path = format!("transports.{transport}");
            if !scope::TRANSPORTS.contains(&transport.as_str()) {
                let known = scope::TRANSPORTS.join(", ");
                return Err(JsonError::at(&path, format!("is none of the transports {known}")));
            }
            let mut lists = BTreeMap::new();
            for (scope, list) in Members::of(scopes, &path)?.into_entries() {
                let path = format!("{path}.\"{scope}\"");
                scope::check(&transport, &scope)
                    .map_err(|problem| JsonError::at(&path, problem))?;
                lists.insert(scope, requirements(list, &path, &transport)?);
            }
            transports.insert(transport, lists);
        }
    }
    members.finish()?;
    Ok(Policy { default, transports })
}

fn requirements(value: Value, path: &str, transport: &str) -> Result<Vec<Requirement>, JsonError> {
    let values = value.array(path)?;
    if values.is_empty() {
        let problem = "the list of requirements is empty, which would accept everything or \
                       nothing; say insecureAcceptAnything or reject";
        return Err(JsonError::at(path, problem));
    }
    let mut list = Vec::with_capacity(values.len());
    for (place, value) in values.into_iter().enumerate() {
        list.push(requirement(value, &format!("{path}[{place}]"), transport)?);
    }
    Ok(list)
}

fn requirement(value: Value, path: &str, transport: &str) -> Result<Requirement, JsonError> {
    let mut members = Members::of(value, path)?;
    let requirement = match members.string("type")?.as_str() {
        "insecureAcceptAnything" => Requirement::InsecureAcceptAnything,
        "reject" => Requirement::Reject,
        "signedBy" => signed_by(&mut members, transport)?,
        "sigstoreSigned" if transport == "aci" => {
            return Err(members.problem("an ACI has no sigstore signatures; use signedBy"));
        }
        "sigstoreSigned" => sigstore_signed(&mut members)?,
        "signedBaseLayer" => {
            let path = members.path_of("baseLayerIdentity");
            SignedIdentity::parse(members.required("baseLayerIdentity")?, &path, false)?;
            Requirement::Unsupported("signedBaseLayer".to_owned())
        }
        other => {
            let problem = format!(
                "'{}' is not one of insecureAcceptAnything, reject, signedBy and sigstoreSigned",
                Text::new(other)
            );
            return Err(JsonError::at(&members.path_of("type"), problem));
        }
    };
    members.finish()?;
    Ok(requirement)
}

fn signed_by(members: &mut Members, transport: &str) -> Result<Requirement, JsonError> {
    let key_type = members.string("keyType")?;
    let known = ["GPGKeys", "signedByGPGKeys", "X509Certificates", "signedByX509CAs"];
    if !known.contains(&key_type.as_str()) {
        let problem = format!("'{}' is not one of {}", Text::new(&key_type), known.join(", "));
        return Err(JsonError::at(&members.path_of("keyType"), problem));
    }
    let given = given(members, &["keyPath", "keyPaths", "keyData"]);
    let [given] = given[..] else {
        return Err(members.problem("has to have exactly one of keyPath, keyPaths and keyData"));
    };
    let keys = key_source(members, given)?;
    if transport == "aci" && members.has("signedIdentity") {
        let problem = "an ACI's signature names no image, so there is nothing to compare with";
        return Err(JsonError::at(&members.path_of("signedIdentity"), problem));
    }
    let identity = identity(members, false)?;
    Ok(match key_type.as_str() {
        "GPGKeys" => Requirement::SignedBy { keys, identity },
        other => Requirement::Unsupported(format!("signedBy with keyType {other}")),
    })
}

fn sigstore_signed(members: &mut Members) -> Result<Requirement, JsonError> {
    let given = given(members, &["keyPath", "keyPaths", "keyData", "keyDatas", "fulcio", "pki"]);
    let [given] = given[..] else {
        return Err(members.problem(
            "has to have exactly one of keyPath, keyPaths, keyData, keyDatas, fulcio and pki",
        ));
    };
    let rekor = rekor(members)?;
    let identity = identity(members, true)?;
    let unsupported = |what: &str| Requirement::Unsupported(format!("sigstoreSigned with {what}"));
    match given {
        "fulcio" => {
            fulcio(members.object("fulcio")?)?;
            if rekor.is_none() {
                return Err(members.problem("fulcio needs one of the rekorPublicKey members too"));
            }
            Ok(unsupported("fulcio"))
        }
        "pki" => {
            pki(members.object("pki")?)?;
            if rekor.is_some() {
                return Err(
                    members.problem("pki and the rekorPublicKey members exclude each other")
                );
            }
            Ok(unsupported("pki"))
        }
        given => {
            let keys = key_source(members, given)?;
            Ok(match rekor {
                Some(name) => unsupported(name),
                None => Requirement::SigstoreSigned { keys, identity },
            })
        }
    }
}

fn identity(members: &mut Members, sigstore: bool) -> Result<SignedIdentity, JsonError> {
    let path = members.path_of("signedIdentity");
    match members.take("signedIdentity") {
        Some(value) => SignedIdentity::parse(value, &path, sigstore),
        None => Ok(SignedIdentity::MatchRepoDigestOrExact),
    }
}

fn given<'a>(members: &Members, names: &[&'a str]) -> Vec<&'a str> {
    names.iter().copied().filter(|name| members.has(name)).collect()
}

/// The transparency log's key, of which there may be one: it is checked for its form.
fn rekor(members: &mut Members) -> Result<Option<&'static str>, JsonError> {
    const NAMES: [&str; 4] =
        ["rekorPublicKeyPath", "rekorPublicKeyPaths", "rekorPublicKeyData", "rekorPublicKeyDatas"];
    match given(members, &NAMES)[..] {
        [] => Ok(None),
        [name] => key_source(members, name).map(|_| Some(name)),
        _ => Err(members.problem("may have only one of the rekorPublicKey members")),
    }
}

/// The member `name`, which ends in Path, Paths, Data or Datas.
fn key_source(members: &mut Members, name: &str) -> Result<KeySource, JsonError> {
    let path = members.path_of(name);
    let value = members.required(name)?;
    let (list, is_path) = match name {
        _ if name.ends_with("Path") => (vec![value.string(&path)?], true),
        _ if name.ends_with("Data") => (vec![value.string(&path)?], false),
        _ => (strings(value, &path)?, name.ends_with("Paths")),
    };
    if list.is_empty() {
        return Err(JsonError::at(&path, "the list is empty"));
    }
    if is_path {
        if list.iter().any(|file| !file.starts_with('/') || file.contains('\0')) {
            return Err(JsonError::at(&path, "the path of a key has to be absolute"));
        }
        return Ok(KeySource::Paths(list.into_iter().map(PathBuf::from).collect()));
    }
    let data = list.iter().map(|text| STANDARD.decode(text)).collect::<Result<Vec<_>, _>>();
    let problem = |_| JsonError::at(&path, "is not base64");
    Ok(KeySource::Data(data.map_err(problem)?))
}

fn strings(value: Value, path: &str) -> Result<Vec<String>, JsonError> {
    value.array(path)?.into_iter().map(|value| value.string(path)).collect()
}

fn fulcio(mut members: Members) -> Result<(), JsonError> {
    let [certificates] = given(&members, &["caPath", "caData"])[..] else {
        return Err(members.problem("has to have exactly one of caPath and caData"));
    };
    key_source(&mut members, certificates)?;
    members.string("oidcIssuer")?;
    members.string("subjectEmail")?;
    members.finish()
}

fn pki(mut members: Members) -> Result<(), JsonError> {
    let [roots] = given(&members, &["caRootsPath", "caRootsData"])[..] else {
        return Err(members.problem("has to have exactly one of caRootsPath and caRootsData"));
    };
    key_source(&mut members, roots)?;
    match given(&members, &["caIntermediatesPath", "caIntermediatesData"])[..] {
        [] => {}
        [name] => drop(key_source(&mut members, name)?),
        _ => return Err(members.problem("may have only one of the caIntermediates members")),
    }
    let subjects = ["subjectEmail", "subjectHostname"].map(|name| members.optional_string(name));
    let [email, host] = subjects;
    if email?.is_none() && host?.is_none() {
        return Err(members.problem("has to have subjectEmail or subjectHostname"));
    }
    members.finish()
}
