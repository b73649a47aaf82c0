//! Our own CLI beside docker's, at the same daemon: what people and scripts read is the same, letter for letter.

use lab::{Daemon, Lab, eventually, start};

/// The same line to both, which must end alike and print the same. "Up 3 seconds" may have become four meanwhile: then both are asked again.
fn difference(daemon: &Daemon, line: &str) -> Option<String> {
    let mut last = None;
    for _ in 0..5 {
        let docker = format!("exec docker -H unix://{} {line}", daemon.socket().display());
        let (theirs, ours) = (daemon.host().shell(&docker), daemon.sluice(line));
        if (ours.code(), &ours.stdout) == (theirs.code(), &theirs.stdout) {
            return None;
        }
        last = Some(format!("=== {line}\n{theirs}\n{ours}"));
    }
    last
}

#[test]
fn what_is_listed_and_shown_reads_as_dockers() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    docker.ok("network create --label a=b mine");
    docker.ok("volume create --label a=b data");
    docker
        .sh(
            "-d --name box -p 8080:80 -p 127.0.0.1:7000-7002:7000-7002 --expose 90 --label tier=front -v data:/d -v /own -v /tmp:/tmp:ro",
            "echo one; echo two; echo three > /new; rm /etc/group; exec sleep 1000",
        )
        .ok();
    docker.ok("run -d --name placed --network mine --health-cmd true --health-interval 1s busybox sleep 1000");
    docker.sh("--name ended", "exit 3");
    docker.ok("create --name made busybox a-long-command with many arguments that are cut off");
    docker.ok("tag busybox other:2");
    docker.ok("commit -m why ended committed:1");
    docker.ok("pause placed");
    eventually("both lines are in the log", 10, || {
        docker.ok("logs box").lines().count() == 2
    });
    // documents as `{{json .}}` have their members in another order: those of docker stand as Go declares them
    let lines = [
        "ps",
        "ps -a",
        "ps -a --no-trunc",
        "ps -aq",
        "ps -aq --no-trunc",
        "ps -as",
        "ps -l",
        "ps -n 2",
        "ps -a --filter status=exited",
        "ps -a --filter name=^/b --format '{{.Names}} {{.Label \"tier\"}} {{.Ports}} {{.Networks}} {{.Mounts}} {{.LocalVolumes}} {{.State}}'",
        "ps -a --format 'table {{.Names}}\\t{{.Image}}\\t{{.Status}}'",
        "images",
        "images -a --no-trunc",
        "images -q",
        "images other",
        "images --filter reference=busybox --format '{{.Repository}}:{{.Tag}} {{.ID}} {{.Size}}'",
        "history busybox",
        "history --no-trunc committed:1",
        "history -q committed:1",
        "network ls",
        "network ls -q",
        "network ls --no-trunc --filter driver=bridge",
        "network ls --format '{{.Name}} {{.Driver}} {{.Scope}}'",
        "network inspect mine",
        "network inspect -f '{{.Driver}} {{.Scope}} {{json .Labels}}' mine",
        "volume ls",
        "volume ls -q",
        "volume ls --filter label=a --format '{{.Name}} {{.Labels}}'",
        "volume inspect data",
        "inspect box",
        "inspect busybox",
        "inspect -f '{{.State.Status}} {{.Config.Labels.tier}} {{len .Mounts}}' box",
        "inspect -f '{{range .Mounts}}{{.Destination}} {{end}}' box",
        "inspect -f '{{json .NetworkSettings.Ports}}' box",
        "inspect -s -f '{{.SizeRw}}' box",
        "inspect nobody",
        "port box",
        "port box 80",
        "port box 80/tcp",
        "port box 99",
        "top box",
        "top box -o pid,args",
        "diff box",
        "logs box",
        "logs -t box",
        "logs -n 1 box",
        "logs --since 1h --until 0s --tail 1 box",
        "system df",
        "system df -v",
        "version --format '{{.Server.APIVersion}} {{.Server.Os}}'",
        "info --format '{{.Containers}} {{.ContainersPaused}} {{.Driver}}'",
        "events --since 1h --until 0s",
        "events --since 1h --until 0s --filter type=container --format '{{.Action}} {{.Actor.Attributes.name}}'",
        "events --since 1h --until 0s --filter container=box --filter event=start --format '{{.Type}} {{json .Actor.Attributes}}'",
        "wait ended",
        "logs nobody",
        "stop nobody",
        "rm box",
        "volume rm data",
        "network rm mine",
        "rmi busybox",
    ];
    let differences: Vec<String> = lines.iter().filter_map(|line| difference(&daemon, line)).collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    docker.ok("unpause placed");
    docker.ok("rm -f box placed");
}

#[test]
fn each_verb_does_what_dockers_does() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let at = |name: &str| lab.host.directory().join(name).display().to_string();
    let sluice = |line: &str| daemon.sluice(line).ok();
    let state = |name: &str| docker.inspect(name, "{{.State.Status}}");

    // run, with every kind of option
    let said = sluice(
        "run --rm --name one -e A=b --env-file /dev/null -w /tmp -u 1000:1000 --hostname h --domainname d --label a=b --memory 64m --cpus 0.5 \
         --ulimit nofile=100 --tmpfs /scratch --mount type=tmpfs,target=/t,tmpfs-size=1m --shm-size 1m --sysctl net.ipv4.ip_default_ttl=9 \
         busybox sh -c 'echo $A; pwd; id -u; hostname; ulimit -n; cat /proc/sys/net/ipv4/ip_default_ttl; grep -c /t /proc/mounts'",
    );
    assert_eq!(
        said.lines().take(6).collect::<Vec<_>>(),
        ["b", "/tmp", "1000", "h", "100", "9"]
    );
    assert_eq!(
        lab.host
            .run(&format!("echo typed | {}", line(&daemon, "run --rm -i busybox cat"))),
        "typed"
    );
    daemon
        .sluice("run --rm busybox nosuch")
        .fails(127, "executable file not found");
    daemon.sluice("run --rm busybox /etc").fails(126, "");
    daemon.sluice("run --rm --memory 1 busybox true").fails(125, "");
    assert_eq!(daemon.sluice("run --rm busybox sh -c 'exit 7'").code(), Some(7));

    // volumes and mounts
    sluice("volume create --label a=b data");
    sluice(
        "run --name source --mount type=volume,source=data,target=/d -v /own busybox sh -c 'echo kept > /d/a; echo y > /own/b'",
    );
    assert_eq!(
        sluice("run --rm --volumes-from source:ro busybox cat /d/a /own/b"),
        "kept\ny"
    );
    daemon.sluice("volume rm data").fails(1, "volume is in use");
    sluice("rm -v source");
    assert_eq!(sluice("volume rm data"), "data");
    sluice("volume create gone");
    assert!(sluice("volume prune -a -f").contains("gone"));

    // create, start, wait, attach, logs
    sluice("create --name two --log-opt max-size=1m busybox sh -c 'echo said; exit 4'");
    assert_eq!(state("two"), "created");
    let ran = daemon.sluice("start -a two");
    assert_eq!((ran.code(), ran.stdout.as_str()), (Some(4), "said\n"));
    assert_eq!(sluice("wait two"), "4");
    assert_eq!(sluice("logs two"), "said");

    // lives
    sluice(
        "run -d --name box --health-cmd true --health-interval 1s --restart unless-stopped busybox sh -c 'trap exit TERM USR1; while :; do sleep 0.1; done'",
    );
    eventually("it is healthy", 20, || {
        docker.inspect("box", "{{.State.Health.Status}}") == "healthy"
    });
    sluice("pause box");
    assert_eq!(state("box"), "paused");
    sluice("unpause box");
    sluice("rename box crate");
    sluice("update --memory 128m --memory-swap 256m --restart no crate");
    assert_eq!(
        docker.inspect("crate", "{{.HostConfig.Memory}} {{.HostConfig.RestartPolicy.Name}}"),
        "134217728 no"
    );
    sluice("restart -t 5 crate");
    assert_eq!(
        sluice("exec -e A=b -w /tmp -u 1000 crate sh -c 'echo $A; pwd; id -u'"),
        "b\n/tmp\n1000"
    );
    assert_eq!(daemon.sluice("exec crate sh -c 'exit 5'").code(), Some(5));
    assert!(sluice("stats --no-stream --format '{{.Name}} {{.MemUsage}}' crate").starts_with("crate "));
    sluice("kill -s USR1 crate");
    eventually("it has ended by that signal", 10, || state("crate") == "exited");
    sluice("start crate");
    assert_eq!(sluice("stop -t 5 crate"), "crate");
    assert_eq!(state("crate"), "exited");

    // files
    std::fs::write(at("in"), "brought\n").unwrap();
    sluice(&format!("cp {} crate:/tmp/in", at("in")));
    sluice(&format!("cp crate:/tmp/in {}", at("out")));
    assert_eq!(std::fs::read_to_string(at("out")).unwrap(), "brought\n");
    assert!(sluice("diff crate").contains("A /tmp/in"));
    sluice(&format!("export -o {} crate", at("crate.tar")));
    sluice(&format!(
        "import -c 'CMD [\"cat\", \"/tmp/in\"]' {} flat:1",
        at("crate.tar")
    ));
    assert_eq!(sluice("run --rm flat:1"), "brought");
    sluice("commit -m why -c 'CMD [\"cat\", \"/tmp/in\"]' crate layered:1");
    assert_eq!(sluice("run --rm layered:1"), "brought");

    // images
    sluice("tag layered:1 layered:2");
    sluice(&format!("save -o {} layered:1 layered:2", at("saved.tar")));
    sluice("rmi layered:1 layered:2");
    assert!(sluice(&format!("load -i {}", at("saved.tar"))).contains("Loaded image: layered:2"));
    assert_eq!(sluice("run --rm layered:2"), "brought");

    // networks
    sluice("network create --subnet 10.9.0.0/24 mine");
    sluice("run -d --name far --network mine --ip 10.9.0.5 busybox sleep 1000");
    sluice("run -d --name near busybox sleep 1000");
    sluice("network connect mine near");
    sluice("exec near ping -c 1 -W 3 10.9.0.5");
    sluice("network disconnect mine near");
    daemon.sluice("network rm mine").fails(1, "has active endpoints");
    sluice("rm -f far near");
    assert!(sluice("network prune -f").contains("mine"));

    // the rest
    assert!(sluice("prune -f").contains("Total reclaimed space"));
    assert_eq!(sluice("ps -aq"), "");
    assert_eq!(sluice("ping"), "OK");
    for line in ["version", "info", "status", "flows", "drops", "system df"] {
        sluice(line);
    }
}

/// The command line of our CLI.
fn line(daemon: &Daemon, words: &str) -> String {
    format!(
        "{} -H unix://{} {words}",
        lab::binary("sluice").display(),
        daemon.socket().display()
    )
}
