//! What a build takes from elsewhere: files of the web, archives of all kinds, contexts by URL and of repositories of git, other images.

use std::{fs, net::TcpStream};

use lab::{Lab, eventually, start};

use crate::builds::{build, context};

/// Serves a directory of files on port 8081 of the host, and its repositories of git on 9418.
fn web(lab: &Lab) -> (std::path::PathBuf, [lab::Background; 2]) {
    let root = lab.host.directory().join("web");
    lab.host.run(&format!(
        r#"mkdir {0} && cd {0} && echo page > page && touch -d '2001-02-03 04:05:06 UTC' page &&
           mkdir in && echo in > in/file && tar -cf plain.tar in && tar -cJf packed.tar.xz in && tar -cjf packed.tar.bz2 in && tar -czf packed.tgz in &&
           printf 'FROM busybox\nCOPY in/file /own\n' > Dockerfile && tar -czf context.tar.gz Dockerfile in &&
           printf 'FROM busybox\nLABEL alone=yes\n' > alone &&
           git init -q -b master repo && cd repo && mkdir sub && printf 'FROM busybox\nCOPY word /own\n' | tee Dockerfile > sub/Dockerfile &&
           echo below > sub/word && echo first > word && git add . && git -c user.name=a -c user.email=a@b commit -q -m one && git tag v1 &&
           echo second > word && git -c user.name=a -c user.email=a@b commit -q -a -m two && cd .. &&
           git clone -q --bare repo app.git && git -C app.git update-server-info"#,
        root.display()
    ));
    let files = format!(
        "python3 -m http.server 8081 --bind 127.0.0.1 --directory {}",
        root.display()
    );
    let git = format!(
        "git daemon --reuseaddr --export-all --listen=127.0.0.1 --base-path={0} {0}",
        root.display()
    );
    let servers = [lab.host.spawn("web.log", &files), lab.host.spawn("git.log", &git)];
    for port in [8081, 9418] {
        eventually("the servers answer", 30, || {
            lab.host.inside(|| TcpStream::connect(("127.0.0.1", port)).is_ok())
        });
    }
    (root, servers)
}

#[test]
fn add_fetches_from_the_web_and_unpacks_archives_of_all_kinds() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let (root, _servers) = web(&lab);
    // as an archive begins: the stock engine takes the whole context for one
    let odd = if daemon.is_ours() { "BZhello" } else { "hello" };
    let made = context(
        &lab,
        "add",
        &[(
            "Dockerfile",
            &"FROM busybox\n\
             ADD http://127.0.0.1:8081/page /from/web\n\
             ADD http://127.0.0.1:8081/packed.tgz http://127.0.0.1:8081/page?x=1 /from/\n\
             ADD packed.tar.xz /xz/\n\
             ADD packed.tar.bz2 /bz2/\n\
             ADD packed.tgz plain.tar /others/\n\
             COPY packed.tgz ODD /kept/\n"
                .replace("ODD", odd),
        )],
    );
    for name in ["packed.tar.xz", "packed.tar.bz2", "packed.tgz", "plain.tar"] {
        fs::copy(root.join(name), made.join(name)).unwrap();
    }
    fs::write(made.join(odd), "text").unwrap();
    build(&daemon, &made, "-t added").ok();
    let look = |what: &str| {
        daemon
            .docker()
            .words(&["run", "--rm", "--network", "none", "added", "sh", "-c", what])
            .ok()
    };
    assert_eq!(
        look("cat /from/web; stat -c '%a %u %Y' /from/web"),
        "page\n600 0 981173106"
    );
    assert_eq!(
        look("ls /from /kept"),
        format!("/from:\npacked.tgz\npage\nweb\n\n/kept:\n{odd}\npacked.tgz")
    );
    assert_eq!(look("cat /xz/in/file /bz2/in/file /others/in/file"), "in\nin\nin");
    // the same file of the web is the same step
    let said = build(&daemon, &made, "-t again").ok();
    assert!(said.matches("Using cache").count() == 6, "{said}");
    fs::write(root.join("page"), "other").unwrap();
    let said = build(&daemon, &made, "-t again").ok();
    assert!(!said.contains("Using cache"), "{said}");

    let missing = context(
        &lab,
        "missing",
        &[("Dockerfile", "FROM busybox\nADD http://127.0.0.1:8081/no /x\n")],
    );
    build(&daemon, &missing, "").fails(1, "failed to GET http://127.0.0.1:8081/no with status 404");
    // an image of a tar of the web
    daemon.docker().ok("import http://127.0.0.1:8081/plain.tar flat");
    daemon.docker().ok("create --name flat --network none flat nothing");
    let names = lab.host.run(&format!(
        "docker -H unix://{} export flat | tar -t",
        daemon.socket().display()
    ));
    assert!(names.contains("in/file"), "{names}");
}

#[test]
fn a_context_may_be_a_url_or_a_repository() {
    let lab = Lab::new();
    let daemon = start(&lab, "");
    let docker = daemon.docker();
    let (_root, _servers) = web(&lab);
    let own = |image: &str| docker.ok(&format!("run --rm --network none {image} cat /own"));
    // what the client fetches itself, and sends
    let by_client = |address: &str, image: &str| {
        let mut command = docker.command(&["build", "-t", image, address]);
        command.env("DOCKER_BUILDKIT", "0");
        lab::Ran::command(&mut command, b"", lab::patience(60)).ok()
    };
    by_client("http://127.0.0.1:8081/context.tar.gz", "url");
    assert_eq!(own("url"), "in");
    by_client("git://127.0.0.1/app.git#v1", "client");
    assert_eq!(own("client"), "first");

    // what the daemon is asked to fetch
    let by_daemon = |address: &str, image: &str| {
        let path = format!("/build?t={image}&remote={}", address.replace('#', "%23"));
        daemon.request("POST", &path, "")
    };
    for (address, image, text) in [
        ("http://127.0.0.1:8081/context.tar.gz", "archive", "in"),
        ("git://127.0.0.1/app.git", "whole", "second"),
        ("git://127.0.0.1/app.git#v1", "tag", "first"),
        ("git://127.0.0.1/app.git#v1:sub", "sub", "below"),
        // a server of files alone, which gives no single commits
        ("http://127.0.0.1:8081/app.git#master:sub", "dumb", "below"),
        ("http://127.0.0.1:8081/app.git", "head", "second"),
    ] {
        let (status, said) = by_daemon(address, image);
        assert!(
            status == 200 && said.contains(&format!("Successfully tagged {image}:latest")),
            "{address}: {said}"
        );
        assert_eq!(own(image), text, "{address}");
    }
    let (status, said) = by_daemon("http://127.0.0.1:8081/alone", "alone");
    assert!(status == 200 && said.contains("Successfully tagged"), "{said}");
    assert_eq!(docker.inspect("alone", "{{.Config.Labels.alone}}"), "yes");
    if daemon.is_ours() {
        for (address, said) in [
            (
                "git://127.0.0.1/app.git#nope",
                "cannot fetch nope of git://127.0.0.1/app.git",
            ),
            ("git://127.0.0.1/app.git#v1:../..", "in the repository"),
            ("git://127.0.0.1/none.git", "git fetch failed"),
            ("http://127.0.0.1:8081/none", "failed to GET"),
            ("file:///etc", "a repository of git"),
            ("git://127.0.0.1/app.git#--x", "invalid refspec"),
        ] {
            let (status, answer) = by_daemon(address, "none");
            assert!(status >= 400 && answer.contains(said), "{address}: {status} {answer}");
        }
        daemon.sluice("build -t ours 'git://127.0.0.1/app.git#v1:sub'").ok();
        assert_eq!(own("ours"), "below");
        daemon.sluice("import http://127.0.0.1:8081/plain.tar flat").ok();
        let left = daemon.data_root().join("building");
        eventually("nothing stays of the builds", 30, || {
            fs::read_dir(&left).map_or(0, Iterator::count) == 0
        });
    }
}
