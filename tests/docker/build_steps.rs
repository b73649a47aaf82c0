//! What a step runs in, and what is said of it.

use lab::{Daemon, Engine, Lab, start};

use crate::builds::{build, context};

#[test]
fn steps_have_the_limits_and_the_network_of_their_build() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let made = context(
        &lab,
        "limits",
        &[(
            "Dockerfile",
            "FROM busybox\nRUN ls /sys/class/net; ulimit -n; grep friend /etc/hosts; df -m /dev/shm | grep /dev/shm\n",
        )],
    );
    let said = build(
        &daemon,
        &made,
        "--rm=false --network none -m 64m --cpu-shares 512 --cpu-period 100000 --cpu-quota 50000 --cpuset-cpus 0 --shm-size 8m --ulimit nofile=123:456 \
         --add-host friend:10.1.2.3",
    )
    .ok();
    assert!(said.contains("\nlo\n123\n") && !said.contains("eth0"), "{said}");
    assert!(said.contains("10.1.2.3\tfriend"), "{said}");
    let shm = said.lines().rfind(|line| line.contains("/dev/shm")).unwrap_or_default();
    assert!(shm.split_whitespace().any(|word| word == "8"), "{said}");
    let container = docker.ok("ps -aq");
    let limits = docker.inspect(
        &container,
        "{{with .HostConfig}}{{.Memory}} {{.CpuShares}} {{.CpuPeriod}} {{.CpuQuota}} {{.CpusetCpus}} {{.NetworkMode}}{{end}}",
    );
    assert_eq!(limits, "67108864 512 100000 50000 0 none");
    docker.ok(&format!("rm {container}"));
    let said = build(&daemon, &made, "--no-cache --network host --add-host friend:10.1.2.3").ok();
    let device = lab.host.run("ls /sys/class/net | grep -v lo | head -n 1");
    assert!(said.contains(device.trim()), "{said}");
    docker.ok("network create steps");
    let said = build(&daemon, &made, "--no-cache --network steps --add-host friend:10.1.2.3").ok();
    assert!(said.contains("\neth0\n"), "{said}");
    build(&daemon, &made, "--no-cache --network nowhere").fails(1, "network nowhere not found");
    if daemon.is_ours() {
        for (flags, said) in [
            ("squash=1", "squashing"),
            ("outputs=[{}]", "--output"),
            ("version=2", "BuildKit"),
            ("securityopt=[\"x\"]", "--security-opt"),
        ] {
            let flags = flags
                .replace('[', "%5B")
                .replace(']', "%5D")
                .replace('"', "%22")
                .replace('{', "%7B")
                .replace('}', "%7D");
            let (status, answer) = daemon.request("POST", &format!("/build?{flags}"), "");
            assert!(status == 501 && answer.contains(said), "{flags}: {status} {answer}");
        }
    }
}

/// What a build says, with every id made the same, and without the containers of steps that only change the configuration: only Docker makes those.
fn told(daemon: &Daemon, directory: &std::path::Path, flags: &str) -> String {
    let ran = build(daemon, directory, flags);
    let mut told = String::new();
    for word in format!("{}\n{}", ran.stdout, ran.stderr).split_inclusive([' ', '\n']) {
        let bare = word.trim_end();
        let digits = bare.strip_prefix("sha256:").unwrap_or(bare);
        let is_id = matches!(digits.len(), 12 | 64) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        told.push_str(&if is_id {
            word.replace(bare, "ID")
        } else {
            word.to_owned()
        });
    }
    let steps = told.split("Step ").map(|step| {
        let runs = [" : RUN ", " : WORKDIR ", "build trigger"]
            .iter()
            .any(|word| step.contains(word));
        match runs {
            true => step.to_owned(),
            false => step.replace(" ---> Running in ID\nRemoving intermediate container ID\n", ""),
        }
    });
    steps.collect::<Vec<_>>().join("Step ")
}

#[test]
fn a_build_says_what_it_says_under_docker() {
    let lab = Lab::new();
    let ours = start(&lab, "");
    if !ours.is_ours() {
        return; // asked of both, when the tests run against ours
    }
    if !std::path::Path::new("/usr/sbin/dockerd").exists() {
        return lab::skipped("dockerd is not installed");
    }
    let stock = Daemon::start_engine(&lab.host, Engine::Docker, "stock", "--bridge=none --iptables=false");
    stock.docker().import(&lab::busybox(), "busybox", &["CMD [\"sh\"]"]);
    let good = context(
        &lab,
        "good",
        &[
            (
                "Dockerfile",
                "ARG BASE=busybox\nFROM $BASE AS one\nARG WORD\nENV A=\"b c\" D=$WORD\nRUN echo out; echo $A$D > /a\nRUN echo err >&2\n\
                 FROM busybox\nCOPY --from=one /a /b\nCOPY file dir/ /c/\nADD file /d\nWORKDIR /e\nWORKDIR f\nUSER ada\nEXPOSE 80\nVOLUME /g\n\
                 LABEL h=\"i j\"\nENTRYPOINT [\"cat\"]\nCMD [\"/b\"]\nSHELL [\"sh\", \"-ec\"]\nSTOPSIGNAL 9\nHEALTHCHECK NONE\nONBUILD RUN true\nMAINTAINER Ada\nRUN true\n",
            ),
            ("file", "f"),
            ("dir/g", "g"),
        ],
    );
    let failing = context(
        &lab,
        "failing",
        &[("Dockerfile", "FROM busybox\nRUN echo before; exit 7\n")],
    );
    let child = context(&lab, "child", &[("Dockerfile", "FROM said\nRUN cat /b\n")]);
    let wrong = |name: &str, text: &str| {
        context(
            &lab,
            name,
            &[("Dockerfile", text), (".dockerignore", "left-out\n"), ("left-out", "")],
        )
    };
    let missing = wrong("missing", "FROM busybox\nRUN true\nCOPY nowhere /x\n");
    let left_out = wrong("left", "FROM busybox\nADD left-out /x\n");
    let unknown = wrong("unknown", "FROM busybox\n\n# here\nRUM true\n");
    let unfinished = wrong("unfinished", "FROM busybox\nENV A=\"b\nRUN true\n");
    let bad_flag = wrong("flag", "FROM busybox\nCOPY --form=x a b\n");
    let no_command = wrong("command", "FROM busybox\nRUN nonesuch-command --of=any\n");
    let (bad_name, bad_stage) = (
        wrong("name", "FROM Busy Box\n"),
        wrong("stage", "FROM busybox AS 1st\n"),
    );
    let mut differ = Vec::new();
    for (directory, flags) in [
        (
            &good,
            "--network none --build-arg WORD=w --build-arg NOBODY=n -t said -t said:2",
        ),
        (&good, "--network none --build-arg WORD=w -t said"),
        (&good, "--network none --build-arg WORD=v --target one"),
        (&good, "--network none --build-arg WORD=w -q -t said"),
        (&child, "--network none -t child"),
        (&child, "--network none --no-cache -t child"),
        (&failing, "--network none --force-rm"),
        (&failing, "--network none"),
        (&failing, "--network none -q --force-rm"),
        (&missing, "--network none"),
        (&left_out, "--network none"),
        (&unknown, ""),
        (&unfinished, ""),
        (&bad_flag, ""),
        (&no_command, "--network none --force-rm"),
        (&bad_name, ""),
        (&bad_stage, ""),
        (&good, "--target nowhere"),
        (&good, "--network none -f nowhere"),
        (&good, "--network none -t Said"),
    ] {
        let (own, other) = (told(&ours, directory, flags), told(&stock, directory, flags));
        if own != other {
            differ.push(format!(
                "{} {flags}\n--- ours\n{own}\n--- docker's\n{other}",
                directory.display()
            ));
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n\n"));
}
