//! The one request of a process.

use super::{
    banks, confine, host,
    journal::{self, Early, Journal},
    keys, quote, seal,
    store::Turn,
    tpm::Tpm,
    watch::Watch,
};
use sandbox_attestation::{
    log::{File, Limits, Recovery, recover, start},
    record::{End, Reason, Uuid},
    session::{
        Answer, Ask, Failure, FailureKind, Launched, LogState, MAX_REQUEST, Opening, Quoted,
        Request, Status, Times, VERSION, read,
    },
    settings::Settings,
};
use std::{
    collections::BTreeMap,
    io::stdin,
    os::{fd::AsFd as _, unix::net::UnixStream},
    process::{self, ExitCode},
    time::{Duration, Instant},
};
use tss_esapi::{
    constants::{CapabilityType, PropertyTag},
    structures::CapabilityData,
};

/// Hears one request, answers it.
pub(crate) fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("sandbox-attest: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    confine::confine()?;
    let socket = stdin().as_fd().try_clone_to_owned().map(UnixStream::from);
    let mut socket = socket.map_err(|error| error.to_string())?;
    let unheard = |error: std::io::Error| {
        format!("no request on standard input (sandbox starts this): {error}")
    };
    let Some(opening) = read::<Opening>(&mut socket, MAX_REQUEST).map_err(unheard)? else {
        return Err("no request on standard input (sandbox starts this)".into());
    };
    confine::forbid_files(&opening.settings)?;
    let early = Early::read(&opening.settings.directory);
    // Started early, and then not needed.
    let Some(request) = read::<Request>(&mut socket, MAX_REQUEST).map_err(unheard)? else {
        return Ok(());
    };
    let watch = Watch::start(socket, opening.patience).map_err(|error| error.to_string())?;
    let pod = match &request {
        Request::Launch { record, .. } => Some(record.pod.clone()),
        _ => None,
    };
    let mut later = None;
    let answer = match opening.version == VERSION {
        true => answer(&opening.settings, request, &watch, early, &mut later)
            .unwrap_or_else(Answer::Failed),
        false => Answer::Failed(Failure::new(
            FailureKind::Request,
            format!("sandbox and sandbox-attest are of different versions ({})", opening.version),
        )),
    };
    let launched = match &answer {
        Answer::Launched(launched) => Some(launched.recnum),
        _ => None,
    };
    let is_taken = watch.answer(answer);
    // Still our turn, but nobody waits for the answer any more.
    if let Some((turn, journal)) = later {
        journal.keep(&turn);
    }
    if !is_taken && let (Some(pod), Some(launch)) = (pod, launched) {
        // Nobody is there any more who would start it.
        abort(&opening.settings, &pod, launch, &opening)?;
    }
    // Nothing is left to be done that the kernel does not do faster.
    process::exit(0)
}

fn abort(settings: &Settings, pod: &Uuid, launch: u64, opening: &Opening) -> Result<(), String> {
    let nobody = UnixStream::pair().map_err(|error| error.to_string())?.0;
    let watch = Watch::start(nobody, opening.patience).map_err(|error| error.to_string())?;
    let end = End::Reason(Reason::Aborted);
    let request = Request::Exit { pod: pod.clone(), launch, end };
    answer(settings, request, &watch, None, &mut None)
        .map(|_| ())
        .map_err(|failure| failure.message)
}

fn answer(
    settings: &Settings,
    request: Request,
    watch: &Watch,
    early: Option<Early>,
    later: &mut Option<(Turn, Journal)>,
) -> Result<Answer, Failure> {
    settings.check().map_err(|problem| Failure::new(FailureKind::Request, problem))?;
    let begin = Instant::now();
    let turn = Turn::wait(&settings.directory, watch)?;
    let came = Instant::now();
    let mut tpm = Tpm::open(&settings.tcti, watch)?;
    let tpm = &mut tpm;
    Ok(match request {
        Request::Launch { record, quote, briefly } => {
            let mut journal = Journal::open(settings, &turn, tpm, watch, early)?;
            // Before anything is written: what can't be asked for should leave no trace.
            if let Some(ask) = &quote {
                quote::selection(ask, journal.active().chief()?, settings.pcr)?;
            }
            let recnum = journal.launch(*record, tpm, watch)?;
            let quote = match quote {
                Some(ask) => {
                    Some(Box::new(quoted(settings, &turn, tpm, &mut journal, &ask, briefly)?))
                }
                None => None,
            };
            let warnings = journal.warnings();
            let times = Times {
                wait: microseconds(came - begin),
                work: microseconds(came.elapsed()),
                tpm: microseconds(tpm.spent()),
            };
            match briefly {
                true => *later = Some((turn, journal)),
                // This answer is long, and who takes it may be slow: others should not wait for that.
                false => journal.keep(&turn),
            }
            Answer::Launched(Launched { recnum, quote, warnings, times })
        }
        Request::Exit { pod, launch, end } => {
            let mut journal = Journal::open(settings, &turn, tpm, watch, early)?;
            let recnum = journal.end(&pod, launch, end, tpm, watch)?;
            journal.keep(&turn);
            Answer::Recorded { recnum }
        }
        Request::Quote(ask) => {
            let mut journal = Journal::open(settings, &turn, tpm, watch, early)?;
            journal.keep(&turn);
            Answer::Quoted(Box::new(quoted(settings, &turn, tpm, &mut journal, &ask, false)?))
        }
        Request::Init(options) => {
            banks::active(tpm, settings.pcr)?.chief()?;
            banks::check(tpm, settings.pcr)?;
            Answer::Ready(Box::new(keys::init(tpm, &turn, &options)?))
        }
        Request::Status => Answer::Status(Box::new(status(settings, &turn, tpm, watch)?)),
        Request::Activate(credential) => {
            Answer::Activated { secret: keys::activate(tpm, &turn, &credential)?.into() }
        }
        Request::Seal { key, selection } => {
            Answer::Sealed(seal::seal(tpm, &key.0, &selection, settings.pcr)?)
        }
        Request::Release(release) => {
            Answer::Released { sealed: seal::release(tpm, &release)?.into() }
        }
    })
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn quoted(
    settings: &Settings,
    turn: &Turn,
    tpm: &mut Tpm,
    journal: &mut Journal,
    ask: &Ask,
    briefly: bool,
) -> Result<Quoted, Failure> {
    let selection = quote::selection(ask, journal.active().chief()?, settings.pcr)?;
    let key = keys::attestation_key(tpm, turn)?;
    let signed = quote::quote(tpm, &key, &ask.qualifying_data.0, &selection)?;
    let identity = key.identity.clone();
    key.unload(tpm)?;
    let news = if briefly { journal.news()? } else { None };
    let (seen, log) = match news {
        Some((seen, log)) => (Some(seen), log),
        None => (None, journal.text(ask.pod.as_ref())?),
    };
    let values = signed.values.into_iter().map(|(bank, values)| {
        (bank, values.into_iter().map(|(pcr, value)| (pcr.into(), value.into())).collect())
    });
    Ok(Quoted {
        attest: signed.attest,
        signature: signed.signature,
        pcrs: values.collect(),
        identity,
        pcr: settings.pcr,
        boot_id: journal.boot().clone(),
        log,
        seen,
        firmware_log: host::firmware_log(&settings.tcti).map(Into::into),
        warnings: journal.warnings(),
    })
}

/// Looks, and changes nothing.
fn status(
    settings: &Settings,
    turn: &Turn,
    tpm: &mut Tpm,
    watch: &Watch,
) -> Result<Status, Failure> {
    let boot = host::boot()?;
    let active = banks::active(tpm, settings.pcr)?;
    let now = banks::register(tpm, &active.banks, settings.pcr)?;
    watch.step("read the log");
    let mut file = File::open(turn.path(), &boot).map_err(journal::unusable)?;
    let (entries, log) = match file.read(&Limits::default()) {
        Err(error) => (Vec::new(), LogState::Differs { problem: error.to_string() }),
        Ok(parsed) => {
            let state = journal::consistent(&parsed.entries, &boot, settings.pcr)
                .map_err(|failure| failure.message)
                .and_then(|()| recover(&parsed.entries, &now).map_err(|error| error.to_string()));
            let state = match state {
                Ok(_) if parsed.torn.is_some() => LogState::Interrupted,
                Ok(Recovery::Begin) => LogState::Empty,
                Ok(Recovery::Agrees) => LogState::Agrees,
                Ok(Recovery::Abort { .. } | Recovery::Extend(_)) => LogState::Interrupted,
                Err(problem) => LogState::Differs { problem },
            };
            (parsed.entries, state)
        }
    };
    let mut warnings = journal::warnings(start(&entries), &active, settings.pcr);
    let used = now.values().flatten().any(|&byte| byte != 0);
    if log == LogState::Empty && used {
        warnings.push(format!(
            "register {} holds something before the first launch: systemd or another program uses \
             it; choose another as \"pcr\" in /etc/sandbox/attest.json, and reboot",
            settings.pcr
        ));
    }
    let identity = keys::identity(turn)?;
    let clock = match (&identity, active.chief()) {
        (Some(_), Ok(chief)) => {
            let key = keys::attestation_key(tpm, turn)?;
            let selection = BTreeMap::from([(chief, [settings.pcr].into())]);
            let clock = quote::quote(tpm, &key, &[], &selection)?.clock;
            key.unload(tpm)?;
            Some(clock)
        }
        _ => None,
    };
    let property = |tpm: &mut Tpm, tag: PropertyTag| -> Result<u32, Failure> {
        let (data, _) = tpm.call("ask the TPM for its maker", |context| {
            context.get_capability(CapabilityType::TpmProperties, tag.into(), 1)
        })?;
        let CapabilityData::TpmProperties(list) = data else { return Err(banks::odd("its maker")) };
        Ok(list.find(tag).map(|property| property.value()).unwrap_or_default())
    };
    let maker = property(tpm, PropertyTag::Manufacturer)?.to_be_bytes();
    let firmware = [PropertyTag::FirmwareVersion1, PropertyTag::FirmwareVersion2]
        .map(|tag| property(tpm, tag));
    let [high, low] = firmware;
    Ok(Status {
        manufacturer: maker.iter().copied().filter(u8::is_ascii_graphic).map(char::from).collect(),
        firmware: u64::from(high?) << 32 | u64::from(low?),
        banks: active.banks,
        pcr: settings.pcr,
        values: now.into_iter().map(|(bank, value)| (bank, value.into())).collect(),
        boot_id: boot,
        records: entries.len() as u64,
        log,
        identity,
        clock,
        warnings,
    })
}
