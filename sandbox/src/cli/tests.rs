use super::*;

/// A command line of words without blanks.
fn words(line: &str) -> Vec<OsString> {
    std::iter::once("sandbox").chain(line.split(' ')).map(OsString::from).collect()
}

fn split(line: &str) -> Result<(Vec<OsString>, Vec<apps::AppWords>), apps::GrammarError> {
    let mut root = Cli::command();
    root.build();
    let run = root.find_subcommand("run").unwrap();
    apps::split(run, &run::AppFlags::command(), words(line).split_off(1))
}

fn app(image: &str, flags: &[&str], arguments: &[&str]) -> apps::AppWords {
    let owned = |words: &[&str]| words.iter().map(OsString::from).collect();
    apps::AppWords { image: image.into(), flags: owned(flags), arguments: owned(arguments) }
}

/// The lines of rkt's manual (`Documentation/subcommands/run.md`) and of its own test of the
/// grammar (`rkt/cli_apps_test.go`, `TestParseAppArgs`).
#[test]
fn several_apps_are_told_apart_as_in_rkt() {
    let foo = "example.com/foo";
    let bar = "example.com/bar";
    let baz = "example.com/baz";
    for (line, expected) in [
        (
            "example.com/foo example.com/bar -- --help --- example.com/baz -- --verbose",
            vec![app(foo, &[], &[]), app(bar, &[], &["--help"]), app(baz, &[], &["--verbose"])],
        ),
        (
            "example.com/foo --- example.com/bar --- example.com/baz ---",
            vec![app(foo, &[], &[]), app(bar, &[], &[]), app(baz, &[], &[])],
        ),
        ("example.com/foo  example.com/bar", vec![app(foo, &[], &[]), app(bar, &[], &[])]),
        (
            "example.com/worker -- --loglevel verbose --- example.com/syncer -- --interval 30s",
            vec![
                app("example.com/worker", &[], &["--loglevel", "verbose"]),
                app("example.com/syncer", &[], &["--interval", "30s"]),
            ],
        ),
        (
            "example.com/worker --exec /bin/ov -- --loglevel verbose --- example.com/syncer \
             --exec /bin/syncer2 -- --interval 30s",
            vec![
                app("example.com/worker", &["--exec=/bin/ov"], &["--loglevel", "verbose"]),
                app("example.com/syncer", &["--exec=/bin/syncer2"], &["--interval", "30s"]),
            ],
        ),
        (
            "docker://busybox --user=1000 --group=100 --exec id",
            vec![app("docker://busybox", &["--user=1000", "--group=100", "--exec=id"], &[])],
        ),
        (
            "--volume logs,kind=host,source=/srv/logs example.com/app1 --mount \
             volume=logs,target=/var/log example.com/app2 --mount volume=logs,target=/opt/log",
            vec![
                app("example.com/app1", &["--mount=volume=logs,target=/var/log"], &[]),
                app("example.com/app2", &["--mount=volume=logs,target=/opt/log"], &[]),
            ],
        ),
        // Everything is an argument up to a lone "---", another "--" included.
        ("a -- -- --exec --- b", vec![app("a", &[], &["--", "--exec"]), app("b", &[], &[])]),
    ] {
        assert_eq!(split(line).map(|(_, apps)| apps), Ok(expected), "{line}");
    }
}

#[test]
fn an_empty_argument_of_an_app_is_kept() {
    let (_, apps) = split("a -- -c  x").unwrap();
    assert_eq!(apps, [app("a", &[], &["-c", "", "x"])]);
}

#[test]
fn flags_of_the_pod_may_stand_anywhere_outside_of_arguments() {
    for line in [
        "--interactive --hostname h --debug a --exec x",
        "a --interactive --hostname h --exec x --debug",
        "a --exec x --interactive --hostname=h --debug",
    ] {
        let (pod, apps) = split(line).unwrap();
        assert_eq!(pod, ["--interactive", "--hostname=h", "--debug"], "{line}");
        assert_eq!(apps, [app("a", &["--exec=x"], &[])], "{line}");
    }
}

#[test]
fn a_value_may_look_like_a_flag_or_a_separator() {
    let (pod, apps) = split("--set-env --A=1 a --exec --- --user --").unwrap();
    assert_eq!(pod, ["--set-env=--A=1"]);
    assert_eq!(apps, [app("a", &["--exec=---", "--user=--"], &[])]);
}

#[test]
fn words_in_the_wrong_place_are_refused_in_the_words_of_rkt() {
    for (line, complaint) in [
        ("-- x", "an image is required before any app arguments"),
        ("a -- x --- -- y", "only one set of app arguments allowed per image"),
        ("--exec /bin/sh a", "--exec must follow an image"),
        ("--memory=1G a", "--memory must follow an image"),
        ("--name x a", "--name must follow an image"),
        ("a --exec x --exec=y", "--exec specified multiple times for the same image"),
    ] {
        assert_eq!(split(line).unwrap_err().to_string(), complaint, "{line}");
    }
}

/// rkt `run.md`: "the `--mount` option is positioned before the app names. It defines mounts on
/// all apps".
#[test]
fn a_mount_before_any_image_is_the_pods() {
    let (pod, apps) = split("--mount volume=data,target=/var/log a b").unwrap();
    assert_eq!(pod, ["--mount=volume=data,target=/var/log"]);
    assert_eq!(apps, [app("a", &[], &[]), app("b", &[], &[])]);
}

#[test]
fn global_options_stand_before_or_after_the_command_and_its_name_can_be_short() {
    for line in [
        "--dir /data --insecure-options=image run a",
        "run --dir /data --insecure-options image a",
        "ru a --insecure-options=image --dir=/data",
        "--dir=/data r a --insecure-options=none --insecure-options=image",
    ] {
        let cli = parse(words(line)).unwrap_or_else(|error| panic!("{line}: {error:?}"));
        assert!(cli.global.insecure_options.skip_image_check(), "{line}");
        assert_eq!(cli.global.dir, Some(PathBuf::from("/data")), "{line}");
        let Verb::Run(run) = cli.verb else { panic!("{line}") };
        assert_eq!(run.images(), ["a"], "{line}");
    }
}

#[test]
fn booleans_take_a_value_after_an_equals_sign_only() {
    for (line, debug) in [("run a", false), ("--debug run a", true), ("run a --debug=false", false)]
    {
        let cli = parse(words(line)).unwrap();
        let Verb::Run(run) = cli.verb else { panic!("{line}") };
        assert_eq!((cli.global.debug, run.images()), (debug, vec!["a"]), "{line}");
    }
}

/// rkt: "any of these flags … can be specified before or after the subcommand", and each image of
/// `fetch` has a signature of its own.
#[test]
fn images_to_fetch_have_their_own_signatures() {
    let expected = vec![("a.aci", Some("a.asc")), ("docker://b", None), ("c", Some("c.sig"))];
    for line in [
        "fetch a.aci --signature a.asc docker://b c --signature=c.sig",
        "image fetch --full a.aci --signature=a.asc docker://b --pull-policy=new c --signature c.sig",
    ] {
        let cli = parse(words(line)).unwrap_or_else(|error| panic!("{line}: {error:?}"));
        let fetch = match &cli.verb {
            Verb::Fetch(fetch) => fetch,
            Verb::Image(image) => image.as_fetch().unwrap(),
            other => panic!("{other:?}"),
        };
        assert_eq!(fetch.images(), expected, "{line}");
    }
}

/// rkt's global flags and their defaults (`rkt help`).
#[test]
fn configuration_comes_from_rkts_directories_unless_the_command_line_names_others() {
    let cli = parse(words("image list")).unwrap();
    let directories = cli.global.directories();
    assert_eq!(
        directories.in_order().collect::<Vec<_>>(),
        [std::path::Path::new("/usr/lib/rkt"), std::path::Path::new("/etc/rkt")]
    );
    assert_eq!(cli.global.policy, PathBuf::from("/etc/sandbox/policy.json"));
    let line = "image list --system-config=/s --local-config=/l --user-config=/u --policy=/p \
                --trust-keys-from-https";
    let cli = parse(words(line)).unwrap();
    let directories = cli.global.directories();
    assert_eq!(
        directories.in_order().collect::<Vec<_>>(),
        ["/s", "/l", "/u"].map(std::path::Path::new)
    );
    let settings = Global { dir: Some("/d".into()), ..cli.global }.image_settings().unwrap();
    assert_eq!((settings.policy, settings.trust_keys_from_https), ("/p".into(), true));
    assert_eq!(settings.data_dir, PathBuf::from("/d"));
}

/// rkt `configuration.md`: `--dir` is over `paths.d`.
#[test]
fn the_data_directory_is_configured_unless_it_is_given() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("paths.d");
    std::fs::create_dir(&folder).unwrap();
    let paths = r#"{"rktKind": "paths", "rktVersion": "v1", "data": "/srv/rkt"}"#;
    std::fs::write(folder.join("paths.json"), paths).unwrap();
    let local = format!("--local-config={}", directory.path().display());
    for (line, expected) in [
        (format!("{local} gc"), "/srv/rkt"),
        (format!("{local} gc --dir=/data"), "/data"),
        ("gc --local-config=/nowhere --system-config=/nowhere".to_owned(), "/var/lib/rkt"),
    ] {
        let cli = parse(words(&line)).unwrap();
        assert_eq!(cli.global.data_dir().unwrap(), PathBuf::from(expected), "{line}");
    }
}

fn complaint(line: &str) -> String {
    match parse(words(line)).unwrap_err().error {
        ComplaintKind::Clap(error) => error.to_string(),
        ComplaintKind::Grammar(error) => error.to_string(),
    }
}

#[test]
fn values_that_mean_nothing_are_refused() {
    for (line, expected) in [
        ("run --volume x a", "unrecognized volume kind"),
        ("run a --memory=16m", "too low"),
        ("run a --user=", "must not be empty"),
        ("run a --working-dir=x", "must be an absolute path"),
        ("run --hostname=a_b! a", "letters, digits"),
        ("run a --supplementary-gids=1,x", "invalid digit"),
        ("run a --no-such-flag", "unexpected argument '--no-such-flag'"),
        ("--dir=relative run a", "must be an absolute path"),
        ("--insecure-options=imag run a", "unknown option \"imag\""),
        ("frobnicate", "unrecognized subcommand"),
        ("--policy=policy.json run a", "must be an absolute path"),
        ("run --scratch=1Mi a", "a scratch disk of 1048576 bytes is not possible"),
        ("run --pull-policy=always a", "invalid value 'always'"),
        ("fetch a -- x", "app arguments unsupported"),
        ("image list --fields=id,x", "unknown option \"x\""),
        ("image list --fields=id,id", "duplicated option \"id\""),
        ("image list --sort=id", "unknown option \"id\""),
        ("image list --format=xml", "Invalid format option: xml"),
        ("image gc --grace-period=1", "is not a duration"),
        ("trust list x", "unexpected argument"),
        ("trust rm --root --prefix=a x", "cannot be used with"),
        ("policy", "Usage: sandbox policy"),
    ] {
        let found = complaint(line);
        assert!(found.contains(expected), "{line}: {found}");
    }
}

#[test]
fn failures_have_the_exit_statuses_of_rkt() {
    for (line, status) in [
        ("run --no-such-flag", FAILURE),
        ("run -- x", FAILURE),
        ("frobnicate", FAILURE),
        ("--help", 0),
        ("run --help", 0),
    ] {
        assert_eq!(parse(words(line)).unwrap_err().status(), status, "{line}");
    }
    assert_eq!(parse(vec!["sandbox".into()]).unwrap_err().status(), 2);
}

#[test]
fn the_definitions_are_consistent() {
    Cli::command().debug_assert();
    run::AppFlags::command().debug_assert();
    fetch::AppFlags::command().debug_assert();
}

/// Whoever asks for help with a command gets an example.
#[test]
fn every_command_has_an_example_in_its_help() {
    fn look(command: &clap::Command, path: &str, without: &mut Vec<String>) {
        let path = format!("{path} {}", command.get_name());
        if command.has_subcommands() && command.get_name() != "trust" {
            command.get_subcommands().for_each(|command| look(command, &path, without));
            return;
        }
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let verb = path.trim_start();
        let is_there = help.contains("Example") && help.contains(verb);
        if !is_there && !command.is_hide_set() {
            without.push(verb.to_owned());
        }
    }
    let mut without = Vec::new();
    look(&Cli::command(), "", &mut without);
    assert!(without.is_empty(), "{without:?}");
}
