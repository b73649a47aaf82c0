//! A registry of images in a host: Debian's.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering},
    },
};

use crate::{HOST, Host, eventually, host::Background};

/// How a registry is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Guard {
    /// By everybody, in the clear.
    Open,
    /// With TLS, by the user `ada` with the password `secret`.
    Tls,
    /// With TLS, by a certificate that is its own authority; clients need one that it has signed.
    Known,
}

/// A running registry.
pub struct Registry {
    host: Host,
    port: u16,
    guard: Guard,
    _program: Background,
}

impl Registry {
    /// Is there a registry to run?
    pub fn is_installed() -> bool {
        crate::files::program("docker-registry").is_some()
    }

    /// Starts one on this port of the host, and waits until it answers. A guarded one has a certificate for the host's address in the LAN.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn start(host: &Host, port: u16, guard: Guard) -> Self {
        let directory = host.directory().join(format!("registry-{port}"));
        crate::files::make(&directory);
        let at = directory.display();
        let more = match guard {
            Guard::Open => String::new(),
            Guard::Tls => {
                host.run(&format!(
                    "cd {at} && echo subjectAltName=IP:{HOST} > names && exec 2>/dev/null && key='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes' &&
                     openssl req -x509 $key -keyout ca.key -out ca.crt -days 2 -subj /CN=authority &&
                     openssl req $key -keyout key.pem -out request -subj /CN=registry &&
                     openssl x509 -req -in request -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names -out own.crt"
                ));
                // `secret`, as bcrypt has it
                let line = "ada:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";
                std::fs::write(directory.join("users"), line).unwrap_or_else(|why| panic!("{why}"));
                format!(
                    "  tls:\n    certificate: {at}/own.crt\n    key: {at}/key.pem\nauth:\n  htpasswd:\n    realm: lab\n    path: {at}/users\n"
                )
            }
            Guard::Known => {
                host.run(&format!(
                    "cd {at} && exec 2>/dev/null && key='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes' &&
                     openssl req -x509 $key -keyout ca.key -out ca.crt -days 2 -subj /CN=registry -addext subjectAltName=IP:{HOST} &&
                     echo extendedKeyUsage=clientAuth > uses && openssl req $key -keyout client.key -out request -subj /CN=client &&
                     openssl x509 -req -in request -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile uses -out client.cert"
                ));
                format!(
                    "  tls:\n    certificate: {at}/ca.crt\n    key: {at}/ca.key\n    clientcas:\n      - {at}/ca.crt\n"
                )
            }
        };
        let address = if guard == Guard::Open { "127.0.0.1" } else { "" };
        Self::serve(host, port, guard, address, &more)
    }

    /// Starts one that everybody reaches on every address of the host, in the clear.
    ///
    /// # Panics
    /// If it does not answer.
    #[track_caller]
    pub fn everywhere(host: &Host, port: u16) -> Self {
        crate::files::make(host.directory().join(format!("registry-{port}")));
        Self::serve(host, port, Guard::Open, "", "")
    }

    #[track_caller]
    fn serve(host: &Host, port: u16, guard: Guard, address: &str, more: &str) -> Self {
        let directory = host.directory().join(format!("registry-{port}"));
        let at = directory.display();
        let config = format!(
            "version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: {at}/data\n  delete:\n    enabled: true\n\
             http:\n  addr: {address}:{port}\n{more}"
        );
        let file = directory.join("config.yml");
        std::fs::write(&file, config).unwrap_or_else(|why| panic!("{why}"));
        let program = host.spawn(
            &format!("registry-{port}.log"),
            &format!("docker-registry serve {}", file.display()),
        );
        eventually("the registry answers", 30, || {
            host.inside(|| TcpStream::connect(("127.0.0.1", port)).is_ok())
        });
        Self {
            host: host.clone(),
            port,
            guard,
            _program: program,
        }
    }

    /// The name of an image in it.
    pub fn name(&self, rest: &str) -> String {
        match self.guard {
            Guard::Open => format!("127.0.0.1:{}/{rest}", self.port),
            Guard::Tls | Guard::Known => format!("{HOST}:{}/{rest}", self.port),
        }
    }

    /// What `curl` gets of it.
    pub fn get(&self, path: &str) -> String {
        self.host.run(&format!("curl -s http://127.0.0.1:{}{path}", self.port))
    }

    /// The file with the certificate of its authority.
    pub fn certificate(&self) -> std::path::PathBuf {
        self.file("ca.crt")
    }

    /// A file of it: `ca.crt`, and where clients need them, `client.cert` and `client.key`.
    pub fn file(&self, name: &str) -> std::path::PathBuf {
        self.host.directory().join(format!("registry-{}/{name}", self.port))
    }

    /// Opens a further port, whose connections lead to the registry; so many of them die after this many bytes of the registry's.
    ///
    /// # Panics
    /// If the port is taken.
    pub fn dying(&self, port: u16, bytes: usize, deaths: i64) -> Way {
        self.way(
            port,
            Fate {
                bytes,
                deaths,
                ..Fate::default()
            },
        )
    }

    /// The same; they die after this many bytes of the client's.
    ///
    /// # Panics
    /// If the port is taken.
    pub fn dying_upwards(&self, port: u16, bytes: usize, deaths: i64) -> Way {
        self.way(
            port,
            Fate {
                bytes,
                deaths,
                is_upwards: true,
                ..Fate::default()
            },
        )
    }

    /// The same; nothing comes any more after this many bytes of the registry's.
    ///
    /// # Panics
    /// If the port is taken.
    pub fn stalling(&self, port: u16, bytes: usize) -> Way {
        self.way(
            port,
            Fate {
                bytes,
                deaths: i64::MAX,
                is_silent: true,
                ..Fate::default()
            },
        )
    }

    fn way(&self, port: u16, fate: Fate) -> Way {
        let shared = Arc::new(Shared {
            fate,
            left: AtomicI64::new(fate.deaths),
            over: AtomicBool::new(false),
            upwards: AtomicUsize::new(0),
        });
        let (to, own) = (self.port, shared.clone());
        // what a thread in the host begins is in the host, too
        self.host.inside(|| {
            let listener = TcpListener::bind(("127.0.0.1", port)).unwrap_or_else(|why| panic!("{why}"));
            std::thread::spawn(move || {
                for client in listener.incoming().flatten() {
                    if own.over.load(Ordering::Relaxed) {
                        return;
                    }
                    let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else {
                        return;
                    };
                    let (Ok(up), Ok(down)) = (client.try_clone(), server.try_clone()) else {
                        continue;
                    };
                    for (from, to, is_upwards) in [(up, server, true), (down, client, false)] {
                        let shared = own.clone();
                        std::thread::spawn(move || pass_on(from, to, is_upwards, &shared));
                    }
                }
            });
        });
        Way {
            host: self.host.clone(),
            port,
            shared,
        }
    }
}

/// What becomes of connections.
#[derive(Clone, Copy, Default)]
struct Fate {
    bytes: usize,
    deaths: i64,
    is_upwards: bool,
    is_silent: bool,
}

struct Shared {
    fate: Fate,
    left: AtomicI64,
    over: AtomicBool,
    upwards: AtomicUsize,
}

/// A way to a registry on which connections die. It ends when this goes.
pub struct Way {
    host: Host,
    port: u16,
    shared: Arc<Shared>,
}

impl Way {
    /// Bytes that clients have sent on it.
    pub fn upwards(&self) -> usize {
        self.shared.upwards.load(Ordering::Relaxed)
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        let port = self.port;
        let _ = self.host.inside(|| TcpStream::connect(("127.0.0.1", port)));
    }
}

/// What comes goes on, until so many bytes have gone and there is a death left to die.
fn pass_on(mut from: TcpStream, mut to: TcpStream, is_upwards: bool, shared: &Shared) {
    let (mut buffer, mut passed) = ([0; 16 * 1024], 0_usize);
    while let Ok(count) = from.read(&mut buffer) {
        if count == 0 || to.write_all(&buffer[..count]).is_err() {
            break;
        }
        passed = passed.saturating_add(count);
        if is_upwards {
            shared.upwards.fetch_add(count, Ordering::Relaxed);
        }
        let is_due = is_upwards == shared.fate.is_upwards && passed > shared.fate.bytes;
        if is_due && shared.left.fetch_sub(1, Ordering::Relaxed) > 0 {
            while shared.fate.is_silent && !shared.over.load(Ordering::Relaxed) {
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
