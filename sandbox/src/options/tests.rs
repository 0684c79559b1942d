use super::quantity::Quantity;
use super::*;
use proptest::prelude::*;
use std::io::Write;

#[test]
fn quantities_are_those_of_the_kubernetes_resource_model() {
    for (text, thousandths) in [
        ("0", 0),
        ("1", 1000),
        ("+1", 1000),
        ("500m", 500),
        ("1.5", 1500),
        (".5", 500),
        ("5.", 5000),
        ("0.1m", 1),
        ("1k", 1_000_000),
        ("128M", 128_000_000_000),
        ("1.5Gi", 1536 * 1024 * 1024 * 1000),
        ("12e6", 12_000_000_000),
        ("12E6", 12_000_000_000),
        ("1E", 1_000_000_000_000_000_000_000),
        ("5e-1", 500),
        ("1u", 1),
    ] {
        assert_eq!(text.parse::<Quantity>().map(Quantity::thousandths), Ok(thousandths), "{text}");
    }
}

#[test]
fn what_is_no_quantity_is_refused() {
    for text in [
        "",
        "-1",
        "M",
        ".",
        "1.2.3",
        "1MB",
        "1Mib",
        "1 M",
        "0x10",
        "1e",
        "1e99",
        "8Ei",
        "१",
        "--1",
        "1ki",
        "999999999999999999999999999",
    ] {
        assert!(text.parse::<Quantity>().is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn any_text_is_a_quantity_or_an_error(text in "[-+]?[0-9.]{0,30}[eEinumkKMGTP]{0,3}[-+]?[0-9]{0,3}") {
        let _ = text.parse::<Quantity>();
    }

    #[test]
    fn whole_numbers_are_exact(number in 0..u64::MAX >> 1) {
        prop_assert_eq!(number.to_string().parse::<Quantity>().map(Quantity::units), Ok(number));
    }

    #[test]
    fn any_text_is_a_volume_or_an_error(text in "\\PC{0,40}") {
        let _ = text.parse::<Volume>();
        let _ = text.parse::<Mount>();
    }

    #[test]
    fn a_cleaned_path_stays_below_the_root(path in "(/|\\.|a){0,12}") {
        if let Ok(clean) = clean(&path) {
            prop_assert!(clean.split('/').skip(1).all(|part| !["", ".", ".."].contains(&part)));
        }
    }
}

/// "It's most likely a mistake from the user, such as passing --memory=16m" (rkt `cli_apps.go`).
#[test]
fn a_memory_limit_of_thousandths_of_bytes_is_taken_for_the_mistake_it_is() {
    assert_eq!("16M".parse::<Memory>().unwrap().bytes(), 16_000_000);
    assert_eq!(
        "16m".parse::<Memory>().unwrap_err(),
        "memory limit of 1 bytes too low. Try a reasonable value, such as --memory=16M"
    );
}

#[test]
fn cpu_limits_are_thousandths_of_a_cpu_and_not_nothing() {
    assert_eq!("750m".parse::<Cpu>().unwrap().millis(), 750);
    assert_eq!("2".parse::<Cpu>().unwrap().millis(), 2000);
    assert!("0".parse::<Cpu>().is_err());
    assert!("5M".parse::<Cpu>().is_err());
}

#[test]
fn limits_are_written_as_they_could_be_given() {
    for text in ["64Mi", "1Gi", "4097", "5Ki"] {
        assert_eq!(text.parse::<Memory>().unwrap().to_string(), text);
    }
    assert_eq!("2".parse::<Cpu>().unwrap().to_string(), "2000m");
}

fn host(source: &str, read_only: bool, recursive: bool) -> Result<Volume, String> {
    Ok(Volume {
        name: "data".parse()?,
        kind: VolumeKind::Host { source: source.into(), recursive },
        read_only,
    })
}

/// rkt `run.md`, "Mounting Volumes": "The read-only parameter is false by default. The recursive
/// parameter is true by default"; "By default, `mode` is `0755`, UID is `0` and GID is `0`."
#[test]
fn volumes_are_those_of_rkts_manual() {
    for (text, volume) in [
        ("data,kind=host,source=/srv/data,readOnly=false", host("/srv/data", false, true)),
        (
            "data,kind=host,source=/srv/data,readOnly=false,recursive=false",
            host("/srv/data", false, false),
        ),
        ("data,kind=host,source=/srv/a=b,readOnly=T", host("/srv/a=b", true, true)),
        (
            "data,kind=empty,readOnly=false",
            Ok(Volume {
                name: "data".parse().unwrap(),
                kind: VolumeKind::Empty { mode: 0o755, uid: 0, gid: 0 },
                read_only: false,
            }),
        ),
        (
            "data,kind=empty,mode=0700,uid=1,gid=2",
            Ok(Volume {
                name: "data".parse().unwrap(),
                kind: VolumeKind::Empty { mode: 0o700, uid: 1, gid: 2 },
                read_only: false,
            }),
        ),
    ] {
        assert_eq!(text.parse::<Volume>(), volume, "{text}");
    }
}

#[test]
fn what_is_no_volume_is_refused_with_what_is_wrong() {
    for (text, complaint) in [
        ("", "is not a name"),
        ("Data,kind=empty", "\"Data\" is not a name"),
        ("a/b,kind=empty", "is not a name"),
        ("data", "unrecognized volume kind"),
        ("data,kind=tmpfs", "unrecognized volume kind"),
        ("data,kind=host", "source for host volume cannot be empty"),
        ("data,kind=host,source=srv", "source for host volume must be absolute path"),
        ("data,kind=host,source=/a,mode=0755", "mode for host volume cannot be set"),
        ("data,kind=host,source=/a,uid=1", "uid for host volume cannot be set"),
        ("data,kind=host,source=/a,gid=1", "gid for host volume cannot be set"),
        ("data,kind=empty,source=/a", "source for empty volume must be empty"),
        ("data,kind=empty,mode=0788", "mode=0788"),
        ("data,kind=empty,mode=77777", "mode=77777"),
        ("data,kind=empty,uid=-1", "uid=-1"),
        ("data,kind=empty,readOnly=yes", "\"yes\" is neither true nor false"),
        ("data,kind=empty,kind=host", "kind is given more than once"),
        ("data,kind=empty,size=1", "unknown volume parameter \"size\""),
        ("data,kind", "not of the form KEY=VALUE"),
    ] {
        let error = text.parse::<Volume>().unwrap_err();
        assert!(error.contains(complaint), "{text}: {error}");
    }
}

#[test]
fn mounts_are_those_of_rkts_manual() {
    let mount = "volume=logs,target=/var//log/".parse::<Mount>().unwrap();
    assert_eq!((mount.volume.as_str(), mount.target.as_str()), ("logs", "/var/log"));
    for (text, complaint) in [
        ("volume=logs", "target=/PATH is missing"),
        ("target=/a", "volume=NAME is missing"),
        ("volume=logs,target=a", "not an absolute path"),
        ("volume=logs,target=/", "the app's root"),
        ("volume=logs,target=/a/../b", "\"..\""),
        ("volume=lo_gs,target=/a", "is not a name"),
        ("volume=logs,target=/a,readOnly=true", "unknown mount parameter"),
    ] {
        let error = text.parse::<Mount>().unwrap_err();
        assert!(error.contains(complaint), "{text}: {error}");
    }
}

#[test]
fn insecure_options_are_those_of_rkt() {
    for (list, image) in [
        ("none", false),
        ("image", true),
        ("Image,TLS", true),
        ("tls,http,pubkey", false),
        ("all-fetch", true),
        ("all-run", false),
        ("all", true),
        ("ondisk", false),
    ] {
        let options: InsecureOptions = list.parse().unwrap();
        assert_eq!(options.skip_image_check(), image, "{list}");
        assert_eq!(options.to_string().parse(), Ok(options));
    }
    assert_eq!("x".parse::<InsecureOptions>(), Err("unknown option \"x\"".to_owned()));
    assert_eq!(
        "tls,image,tls".parse::<InsecureOptions>(),
        Err("duplicated option \"tls\"".to_owned())
    );
}

fn environment(text: &str) -> Environment {
    let mut environment = Environment::default();
    for variable in text.split_whitespace() {
        let Variable { name, value } = variable.parse().unwrap();
        environment.set(&name, &value);
    }
    environment
}

/// rkt `stage0/run.go`, generatePodManifest: "Inherit environment does not override app image
/// environment"; then `--set-env-file` and `--set-env` override what is there, `--environment`
/// included.
#[test]
fn environments_come_over_each_other_as_in_rkts_code() {
    let layers = Layers {
        inherited: [("A", "inherited"), ("B", "inherited"), ("SHELL", "/bin/fish")]
            .map(|(name, value)| (name.into(), value.into()))
            .to_vec(),
        file: environment("D=file E=file"),
        explicit: environment("E=explicit"),
    };
    let image = environment("B=image C=image D=image E=image");
    let own = environment("C=own D=own E=own");
    let result = layers.apply("web", &image, &own);
    for (name, value) in [
        ("A", "inherited"),
        ("B", "image"),
        ("C", "own"),
        ("D", "file"),
        ("E", "explicit"),
        ("SHELL", "/bin/fish"),
        ("USER", "root"),
        ("LOGNAME", "root"),
        ("HOME", "/root"),
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("AC_APP_NAME", "web"),
    ] {
        assert_eq!(result.get(name), Some(value), "{name}");
    }
}

/// rkt `run.md`: "Lines starting with `#` or `;` and empty ones will be ignored."
#[test]
fn an_environment_file_has_variables_and_comments() {
    let read = |text: &str| {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        Environment::from_file(file.path()).map_err(|error| error.to_string())
    };
    assert_eq!(read("# a\n; b\n\nA=1=2\nB=\n"), Ok(environment("A=1=2 B=")));
    assert!(read("A=1\nB\n").unwrap_err().contains("line 2: environment variable must be"));
    assert!(read("=1\n").unwrap_err().contains("line 1"));
    assert!(read("A=1\nA=2\n").unwrap_err().contains("line 2: environment variable \"A\" already"));
}

#[test]
fn an_option_sets_a_variable_once() {
    let variables = ["A=1", "A=2"].map(|variable| variable.parse::<Variable>().unwrap());
    let error = Environment::from_option("--set-env", &variables).unwrap_err();
    assert_eq!(error.to_string(), "--set-env: key \"A\" already set");
}
