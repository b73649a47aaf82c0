//! Images built from Dockerfiles, by the classic builder of the stock CLI and by our own.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use lab::{Daemon, Lab, Ran, patience, start};

/// A directory with these files; a name that ends with a slash is a directory.
pub(crate) fn context(lab: &Lab, name: &str, files: &[(&str, &str)]) -> PathBuf {
    let directory = lab.host.directory().join(name);
    for (name, text) in files {
        let path = directory.join(name);
        fs::create_dir_all(if name.ends_with('/') {
            &path
        } else {
            path.parent().unwrap()
        })
        .unwrap();
        if !name.ends_with('/') {
            fs::write(path, text).unwrap();
        }
    }
    directory
}

pub(crate) fn build(daemon: &Daemon, directory: &Path, flags: &str) -> Ran {
    let directory = directory.display().to_string();
    let words: Vec<&str> = ["build"]
        .into_iter()
        .chain(flags.split_whitespace())
        .chain([directory.as_str()])
        .collect();
    let mut command = daemon.docker().command(&words);
    command.env("DOCKER_BUILDKIT", "0");
    Ran::command(&mut command, b"", patience(60))
}

#[test]
fn every_instruction_does_what_docker_does() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let made = context(
        &lab,
        "all",
        &[
            (
                "Dockerfile",
                r#"# every instruction of the classic builder
ARG BASE=busybox
FROM ${BASE} AS first
ARG WORD=default
ENV GREETING="hello $WORD" OTHER=${MISSING:-none}
RUN echo "$GREETING $OTHER $WORD" > /first && \
    # between
    mkdir /made && echo x > /made/x

FROM busybox
LABEL one=1 "two words"="2 3"
MAINTAINER Ada
SHELL ["/bin/sh", "-ec"]
WORKDIR /work/dir
WORKDIR deeper
COPY a.txt b*.txt ./texts/
COPY --chown=ada:engineers sub /sub
COPY --from=first /first /made/ /from/
COPY --from=0 /made /again
ADD archive.tar /unpacked/
RUN pwd > here; id -u >> here; mkdir -m 777 /pub
USER ada
RUN id -un > /pub/who
EXPOSE 80 53/udp
VOLUME ["/data"]
STOPSIGNAL SIGUSR1
HEALTHCHECK --interval=5s CMD true
ONBUILD RUN echo triggered > /pub/trigger
ENTRYPOINT ["/bin/sh", "-c"]
CMD ["cat /work/dir/deeper/here"]
"#,
            ),
            ("a.txt", "a"),
            ("b1.txt", "b1"),
            ("b2.txt", "b2"),
            ("c.txt", "left out"),
            ("sub/deep/file", "deep"),
            (".dockerignore", "c.txt\n.dockerignore\n"),
        ],
    );
    lab.host.run(&format!(
        "cd {} && echo in > in && tar -cf archive.tar in && rm in && ln -s a.txt sub/link",
        made.display()
    ));
    fs::set_permissions(made.join("a.txt"), fs::Permissions::from_mode(0o640)).unwrap();
    let said = build(
        &daemon,
        &made,
        "--build-arg WORD=world --label three=3 -t all:1 -t all:2",
    )
    .ok();
    for line in [
        "Step 1/",
        " : FROM busybox",
        " ---> Running in ",
        "Removing intermediate container ",
        "Successfully built ",
        "Successfully tagged all:1",
        "Successfully tagged all:2",
    ] {
        assert!(said.contains(line), "{line} is missing in\n{said}");
    }
    let look = |what: &str| {
        docker
            .words(&["run", "--rm", "--entrypoint", "/bin/sh", "all:1", "-c", what])
            .ok()
    };
    assert_eq!(docker.ok("run --rm all:1"), "/work/dir/deeper\n0");
    assert_eq!(look("cat /from/first"), "hello world none world");
    assert_eq!(look("ls /from /again"), "/again:\nx\n\n/from:\nfirst\nx");
    assert_eq!(look("ls /work/dir/deeper/texts"), "a.txt\nb1.txt\nb2.txt");
    assert_eq!(look("stat -c '%a %u %g' /work/dir/deeper/texts/a.txt"), "640 0 0");
    assert_eq!(
        look("stat -c '%u %g' /sub /sub/deep/file; readlink /sub/link"),
        "1000 2000\n1000 2000\na.txt"
    );
    assert_eq!(look("cat /unpacked/in; cat /pub/who"), "in\nada");
    let config = |path: &str| docker.inspect("all:1", &format!("{{{{json {path}}}}}"));
    assert_eq!(config(".Config.Cmd"), r#"["cat /work/dir/deeper/here"]"#);
    assert_eq!(config(".Config.Entrypoint"), r#"["/bin/sh","-c"]"#);
    assert_eq!(config(".Config.Labels"), r#"{"one":"1","three":"3","two words":"2 3"}"#);
    assert_eq!(config(".Config.ExposedPorts"), r#"{"53/udp":{},"80/tcp":{}}"#);
    assert_eq!(config(".Config.Volumes"), r#"{"/data":{}}"#);
    assert_eq!(
        (config(".Config.StopSignal"), config(".Author")),
        ("\"SIGUSR1\"".into(), "\"Ada\"".into())
    );
    assert_eq!(config(".Config.User"), "\"ada\"");
    assert_eq!(config(".Config.Healthcheck.Interval"), "5000000000");
    assert_eq!(
        docker.inspect("all:1", "[{{range .Config.OnBuild}}\"{{.}}\"{{end}}]"),
        r#"["RUN echo triggered > /pub/trigger"]"#
    );
    let history = docker.ok("history --no-trunc --format {{.CreatedBy}} all:1");
    assert!(
        history.contains("/bin/sh -ec id -un > /pub/who") && history.contains("#(nop)  EXPOSE"),
        "{history}"
    );

    // the same again costs nothing; another file or argument does
    let said = build(&daemon, &made, "--build-arg WORD=world --label three=3 -t all:3").ok();
    assert!(
        said.contains(" ---> Using cache") && !said.contains("Running in"),
        "{said}"
    );
    assert_eq!(docker.inspect("all:3", "{{.Id}}"), docker.inspect("all:1", "{{.Id}}"));
    fs::write(made.join("b2.txt"), "other").unwrap();
    let said = build(&daemon, &made, "--build-arg WORD=world -t all:4").ok();
    assert!(
        said.contains(" ---> Using cache") && said.contains("Running in"),
        "{said}"
    );
    let said = build(&daemon, &made, "--build-arg WORD=moon --build-arg NOBODY=1 -t all:5").ok();
    assert!(
        said.contains("One or more build-args [NOBODY] were not consumed"),
        "{said}"
    );
    assert!(
        build(&daemon, &made, "--no-cache -q --target first -t first:1")
            .ok()
            .starts_with("sha256:")
    );
    assert_eq!(docker.ok("run --rm first:1 cat /first"), "hello default none default");

    let child = context(&lab, "child", &[("Dockerfile", "FROM all:1\n")]);
    let said = build(&daemon, &child, "-t child").ok();
    assert!(said.contains("# Executing 1 build trigger"), "{said}");
    assert_eq!(
        docker.words(&["run", "--rm", "child", "cat /pub/trigger"]).ok(),
        "triggered"
    );

    // steps on the way are hidden, and go with what was built; the last ones of stages nobody named are pruned, as with Docker
    let names = |flags: &str| docker.ok(&format!("images {flags} --format {{{{.Repository}}}}"));
    let count = |flags: &str| names(flags).matches("<none>").count();
    assert!(count("-a") > count("") + 10, "{}", names("-a"));
    docker.ok("rmi child all:1 all:2 all:3 all:4 all:5 first:1");
    docker.ok("image prune -f");
    assert_eq!(count("-a"), 0, "{}", docker.ok("images -a"));
    assert_eq!(docker.ok("ps -aq"), "");
}

#[test]
fn what_is_wrong_with_a_build_is_said_as_docker_says_it() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    for (number, (text, said)) in [
        ("", "cannot be empty"),
        (
            "FROM busybox\nFOO bar\n",
            "dockerfile parse error line 2: unknown instruction: FOO",
        ),
        ("RUN x\n", "no build stage in current context"),
        (
            "FROM busybox\nRUN exit 3\n",
            "The command '/bin/sh -c exit 3' returned a non-zero code: 3",
        ),
        ("FROM busybox\nCOPY missing /x\n", "file does not exist"),
        (
            "FROM busybox\nCOPY a b /x\n",
            "the destination must be a directory and end with a /",
        ),
        (
            "FROM busybox\nRUN --mount=type=cache,target=/x true\n",
            "requires BuildKit",
        ),
        ("FROM busybox\nCOPY ../../../etc/passwd /x\n", "COPY failed"),
    ]
    .into_iter()
    .enumerate()
    {
        let made = context(
            &lab,
            &format!("wrong-{number}"),
            &[("Dockerfile", text), ("a", ""), ("b", "")],
        );
        let ran = build(&daemon, &made, "--force-rm");
        assert!(!ran.is_ok(), "{text}");
        assert!(ran.stderr.contains(said), "{text}: {}", ran.stderr);
    }
    let made = context(&lab, "target", &[("Dockerfile", "FROM busybox AS a\n")]);
    build(&daemon, &made, "--target nope").fails(1, "failed to reach build target nope in Dockerfile");
}

#[test]
fn our_own_client_builds_too_and_knows_more() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    if !daemon.is_ours() {
        return;
    }
    let made = context(
        &lab,
        "own",
        &[
            (
                "Dockerfile",
                "FROM busybox\nARG NAME=x\nRUN <<EOF\necho \"one $NAME\" > /one\necho two >> /one\nEOF\n\
                 COPY <<A <<\"B\" /texts/\nhello $NAME\nA\nhello $NAME\nB\nCOPY --chmod=755 run.sh /run.sh\nCOPY . /all/\nCMD [\"/run.sh\"]\n",
            ),
            ("run.sh", "#!/bin/sh\ncat /one /texts/A /texts/B; ls /all\n"),
            ("deep/secret", "s"),
            ("deep/public", "p"),
            (".dockerignore", "deep\n!deep/public\nDockerfile\n.dockerignore\n"),
        ],
    );
    let said = daemon
        .sluice(&format!("build --build-arg NAME=ada -t own {}", made.display()))
        .ok();
    assert!(said.contains("Successfully tagged own:latest"), "{said}");
    let all = "one ada\ntwo\nhello ada\nhello $NAME\ndeep\nrun.sh";
    assert_eq!(daemon.docker().ok("run --rm own"), all);
    assert_eq!(daemon.docker().ok("run --rm own ls /all/deep"), "public");
    let id = lab.host.directory().join("id");
    daemon
        .sluice(&format!("build -q --iidfile {} {}", id.display(), made.display()))
        .ok();
    assert!(fs::read_to_string(id).unwrap().starts_with("sha256:"));
    let piped = format!(
        "printf 'FROM scratch\\nLABEL a=b\\n' | {} -H unix://{} build -t empty -",
        lab::binary("sluice").display(),
        daemon.socket().display()
    );
    lab.host.run(&piped);
    assert_eq!(daemon.docker().inspect("empty", "{{.Config.Labels.a}}"), "b");
}
