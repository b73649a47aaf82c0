//! What a container finds in its namespace and in `/etc`.

use sluice_model::container::NetworkMode;

use crate::house::{House, inside};

#[test]
fn each_network_mode_gives_what_it_says() {
    inside("network::each_network_mode_gives_what_it_says", || async {
        let house = House::build().await;
        let run = async |name: &str, mode: NetworkMode, script: &str| {
            let mut wish = house.wish(name, &["sh", "-c", script]);
            wish.host_config.network_mode = mode;
            wish.config.hostname = Some("inner".into());
            house.run_to_end(wish).await.1
        };
        let bridged = run(
            "bridged",
            NetworkMode::Default,
            "ip -4 -o addr show eth0; ip route; cat /etc/hosts; hostname",
        )
        .await;
        for part in [
            "172.17.0.2/16",
            "default via 172.17.0.1",
            "172.17.0.2\tinner",
            "\ninner\n",
        ] {
            assert!(bridged.contains(part), "{part:?} in {bridged}");
        }
        let none = run("none", NetworkMode::None, "ip -o link").await;
        assert!(none.contains("lo") && !none.contains("eth0"), "{none}");
        let host = run("host", NetworkMode::Host, "ip -o link").await;
        assert!(host.contains("sluice0"), "{host}");
        house.tear_down().await;
    });
}

#[test]
fn two_containers_and_the_host_reach_a_published_page() {
    inside(
        "network::two_containers_and_the_host_reach_a_published_page",
        || async {
            let house = House::build().await;
            let mut wish = house.wish("web", &["httpd", "-f", "-p", "80", "-h", "/srv"]);
            wish.host_config.port_bindings = vec![sluice_model::PortBinding {
                container: "80/tcp".parse().unwrap(),
                host_address: None,
                host_ports: (8080, 8080),
                count: 1,
            }];
            house.run(wish).await.unwrap();
            let address = house.engine.inspect_container("web", false).await.unwrap().endpoints[0].addresses[0].addr();
            // not with wget, which as a static program of Debian's falls over its name service
            let fetch = |address: &str, port: u16| {
                format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {address} {port} | tail -n 1")
            };
            let fetch = format!("{}; {}", fetch(&address.to_string(), 80), fetch("172.17.0.1", 8080));
            let (code, pages) = house.run_to_end(house.wish("client", &["sh", "-c", &fetch])).await;
            assert_eq!((code, pages.as_str()), (0, "hello\nhello\n"));
            use std::io::{Read, Write};
            for host in ["127.0.0.1", "172.17.0.1"] {
                let mut connection = std::net::TcpStream::connect((host, 8080)).unwrap();
                connection.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
                let mut page = String::new();
                connection.read_to_string(&mut page).unwrap();
                assert!(page.ends_with("\r\n\r\nhello\n"), "{page}");
            }
            house.tear_down().await;
        },
    );
}
