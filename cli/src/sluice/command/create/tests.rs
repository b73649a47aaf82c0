//! What becomes of a command line.

use clap::Parser;

use super::*;

#[derive(Parser)]
#[command(disable_help_flag = true)]
struct Line {
    #[command(flatten)]
    container: Container,
}

fn container(line: &[&str]) -> Container {
    Line::try_parse_from(["create"].iter().chain(line))
        .unwrap_or_else(|error| panic!("{error}"))
        .container
}

fn body(line: &[&str]) -> ContainerCreateBody {
    container(line).body(true).unwrap()
}

#[test]
fn what_stands_behind_the_image_is_the_command() {
    let body = body(&["-i", "-h", "box", "alpine", "sh", "-c", "echo --rm", "--rm", "-i"]);
    assert_eq!(body.image.unwrap(), "alpine");
    assert_eq!(body.cmd.unwrap(), ["sh", "-c", "echo --rm", "--rm", "-i"]);
    assert_eq!(body.hostname.unwrap(), "box");
    assert_eq!(body.host_config.unwrap().auto_remove, Some(false));
    assert_eq!((body.open_stdin, body.stdin_once), (Some(true), Some(true)));
}

#[test]
fn an_unknown_option_before_the_image_is_refused() {
    assert!(Line::try_parse_from(["create", "--nope", "alpine"]).is_err());
    assert!(Line::try_parse_from(["create"]).is_err());
}

#[test]
fn options_find_their_place() {
    let body = body(&[
        "--rm",
        "-itp",
        "8080:80",
        "-P",
        "-e",
        "A=1",
        "-v",
        "/srv:/data:ro",
        "-v",
        "/anonymous",
        "--net",
        "none",
        "--name=x",
        "-l",
        "a=b",
        "-l",
        "flag",
        "-u",
        "web",
        "-w",
        "/srv",
        "--entrypoint",
        "/bin/sh",
        "-m",
        "64m",
        "--cpus",
        "1.5",
        "image",
    ]);
    let host = body.host_config.unwrap();
    assert_eq!(host.binds.unwrap(), ["/srv:/data:ro"]);
    assert_eq!(body.volumes.unwrap(), ["/anonymous"]);
    assert_eq!(
        (host.network_mode.as_deref(), host.auto_remove),
        (Some("none"), Some(true))
    );
    assert_eq!((host.memory, host.nano_cpus), (Some(64 << 20), Some(1_500_000_000)));
    assert_eq!((body.tty, host.publish_all_ports), (Some(true), Some(true)));
    assert_eq!(body.labels.unwrap()["flag"], "");
    assert_eq!(body.entrypoint.unwrap(), ["/bin/sh"]);
    assert_eq!(body.exposed_ports.unwrap(), ["80/tcp"]);
    assert_eq!(body.env.unwrap(), ["A=1"]);
}

#[test]
fn a_variable_without_value_is_ours() {
    let path = std::env::var("PATH").unwrap();
    let container = container(&["-e", "PATH", "-e", "SLUICE_SURELY_NOT_SET", "-e", "EMPTY=", "image"]);
    assert_eq!(
        environment(&container.env_file, &container.env).unwrap(),
        [format!("PATH={path}"), "EMPTY=".into()]
    );
}

#[test]
fn an_env_file_has_comments_and_the_command_line_the_last_word() {
    let file = std::env::temp_dir().join(format!("sluice-cli-env-{}", std::process::id()));
    std::fs::write(&file, "# comment\nA=1\n\n  B=two words\n").unwrap();
    let of = |words: &[&str]| {
        let container = container(words);
        environment(&container.env_file, &container.env)
    };
    let environment = of(&["--env-file", file.to_str().unwrap(), "-e", "A=2", "image"]);
    std::fs::write(&file, "WRONG NAME=1\n").unwrap();
    let wrong = of(&["--env-file", file.to_str().unwrap(), "image"]);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(environment.unwrap(), ["A=1", "B=two words", "A=2"]);
    assert!(wrong.is_err());
}

#[test]
fn policies_and_sizes_are_checked() {
    let policy = restart_policy("on-failure:3").unwrap();
    assert_eq!(
        (policy.name, policy.maximum_retry_count),
        (Some(RestartPolicyNameEnum::ON_FAILURE), Some(3))
    );
    assert!(restart_policy("sometimes").is_err() && restart_policy("on-failure:x").is_err());
    assert!(container(&["-m", "much", "image"]).body(false).is_err());
    assert!(
        container(&["--rm", "--restart", "always", "image"])
            .body(false)
            .is_err()
    );
}
