//! Puts programs where packets and sockets meet them, and never takes one away that works.
//!
//! tcx links (Linux 6.6) and cgroup links are pinned; another program is put behind the same link, so no packet meets none. Below 6.6 a clsact
//! filter is replaced in place, which the kernel does as atomically; it stays with its device without a pin.
//!
//! A new veth begins with a filter on any kernel: making a tcx link, and removing a device that has one, waits for a grace period of RCU with the
//! lock of all network configuration held (`tcx_entry_sync`: 10 to 30 ms each), a filter is there at once. Who lives longer than a moment gets
//! the link ([`Attacher::promote`]).

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use rtnetlink::{
    packet_core::{NLM_F_CREATE, NLM_F_EXCL},
    packet_route::{
        RouteNetlinkMessage,
        tc::{TcAttribute, TcBpfFlags, TcFilterBpfOption, TcHandle, TcMessage, TcOption},
    },
};
use sluice_datapath_common::programs::{
    BIND4, BIND6, CLASSIFIERS, CONNECT4, CONNECT6, FROM_CONTAINER, GETPEERNAME4, GETPEERNAME6, RECVMSG4, RECVMSG6,
    SENDMSG4, SENDMSG6, SOCKET_HOOKS, TO_NIC,
};

use super::load::Programs;
use crate::{
    AgentError, Tried,
    kernel::{
        bpf::{self, AttachType},
        netlink::Netlink,
    },
    map::pins::Maps,
    names::Names,
    view,
};

/// How a program came to where it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It was there.
    Unchanged,
    /// It took the place of another.
    Replaced,
    /// There was none.
    Attached,
}

/// Attaches the programs of one instance.
pub struct Attacher {
    directory: PathBuf,
    cgroup: Result<(PathBuf, File), String>,
    /// Filters of this priority on a clsact qdisc are ours.
    priority: u16,
    /// The kernel has no tcx links.
    clsact: AtomicBool,
}

/// Which way a program looks at a device.
fn side(program: &str) -> AttachType {
    if program == TO_NIC {
        AttachType::TcxEgress
    } else {
        AttachType::TcxIngress
    }
}

fn socket_hook(program: &str) -> Option<AttachType> {
    match program {
        CONNECT4 => Some(AttachType::Connect4),
        SENDMSG4 => Some(AttachType::Sendmsg4),
        RECVMSG4 => Some(AttachType::Recvmsg4),
        GETPEERNAME4 => Some(AttachType::Getpeername4),
        BIND4 => Some(AttachType::Bind4),
        CONNECT6 => Some(AttachType::Connect6),
        SENDMSG6 => Some(AttachType::Sendmsg6),
        RECVMSG6 => Some(AttachType::Recvmsg6),
        GETPEERNAME6 => Some(AttachType::Getpeername6),
        BIND6 => Some(AttachType::Bind6),
        _ => None,
    }
}

// === impl Attacher ===

impl Attacher {
    /// Makes the directory of links. `clsact`: do without tcx even where the kernel has it.
    pub fn new(names: &Names, cgroup: io::Result<PathBuf>, clsact: bool) -> Result<Self, AgentError> {
        let directory = names.links();
        fs::create_dir_all(&directory).tried(|| format!("making {}", directory.display()))?;
        let cgroup = cgroup
            .and_then(|path| File::open(&path).map(|file| (path, file)))
            .map_err(|error| error.to_string());
        Ok(Self {
            directory,
            cgroup,
            priority: names.filter_priority(),
            clsact: AtomicBool::new(clsact),
        })
    }

    fn pin(&self, program: &str, ifindex: u32) -> PathBuf {
        self.directory.join(format!("{program}-{ifindex}"))
    }

    /// Sees to it that the program is attached to the device.
    pub fn to_device(&self, programs: &Programs, program: &'static str, ifindex: u32) -> Result<Outcome, AgentError> {
        let what = || format!("attaching {program} to device {ifindex}");
        let (fd, id) = programs.get(program)?;
        if self.clsact.load(Ordering::Relaxed) {
            return self.by_filter(program, fd, id, ifindex).tried(what);
        }
        let pin = self.pin(program, ifindex);
        match self.by_link(
            &pin,
            fd,
            id,
            |info| info.ifindex == ifindex,
            || bpf::attach_to_device(fd, ifindex, side(program)),
        ) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && !has_tcx(ifindex) => {
                tracing::info!("this kernel has no tcx links (before 6.6): programs are attached to clsact");
                self.clsact.store(true, Ordering::Relaxed);
                self.by_filter(program, fd, id, ifindex).tried(what)
            }
            outcome => outcome.tried(what),
        }
    }

    /// Are devices that live on given links? Known for sure once a program was attached.
    pub fn has_tcx(&self) -> bool {
        !self.clsact.load(Ordering::Relaxed)
    }

    /// Is the program attached to the device by a link?
    pub fn has_link(&self, program: &str, ifindex: u32) -> bool {
        self.pin(program, ifindex).exists()
    }

    /// Sees to it that the program is attached to a young device, without waiting: by a filter.
    pub fn to_new_device(&self, programs: &Programs, program: &'static str, ifindex: u32) -> Result<(), AgentError> {
        let (fd, id) = programs.get(program)?;
        let outcome = self.by_filter(program, fd, id, ifindex);
        outcome
            .map(drop)
            .tried(|| format!("attaching {program} to device {ifindex}"))
    }

    /// As [`Attacher::to_device`] for a device that began with a filter, which goes (when there may be one: `suspect`) once the link is there. A
    /// packet of that moment meets the program by the link; the filter behind it sees only what the link's program has no opinion on.
    pub fn promote(
        &self,
        programs: &Programs,
        names: &Names,
        program: &'static str,
        ifindex: u32,
        suspect: bool,
    ) -> Result<(), AgentError> {
        let outcome = self.to_device(programs, program, ifindex)?;
        if !self.clsact.load(Ordering::Relaxed) && (suspect || outcome == Outcome::Attached) {
            remove_filters(names, ifindex).tried(|| format!("removing the filter of device {ifindex}"))?;
        }
        Ok(())
    }

    /// Sees to it that the socket hooks are attached to the root of the cgroups that are visible here.
    pub fn to_cgroup(&self, programs: &Programs) -> Result<(), AgentError> {
        let (path, root) = self.cgroup.as_ref().map_err(|why| {
            AgentError::Failed(format!(
                "published ports cannot be reached from this host's own processes: {why}"
            ))
        })?;
        for program in SOCKET_HOOKS {
            let what = || format!("attaching {program} to the cgroup {}", path.display());
            let Some(hook) = socket_hook(program) else { continue };
            let (fd, id) = programs.get(program)?;
            let pin = self.directory.join(program);
            self.by_link(
                &pin,
                fd,
                id,
                |info| info.cgroup != 0,
                || bpf::attach_to_cgroup(fd, root.as_fd(), hook),
            )
            .tried(what)?;
        }
        Ok(())
    }

    fn by_link(
        &self,
        pin: &Path,
        program: BorrowedFd<'_>,
        id: u32,
        is_alive: impl Fn(&bpf::LinkInfo) -> bool,
        attach: impl FnOnce() -> io::Result<std::os::fd::OwnedFd>,
    ) -> io::Result<Outcome> {
        match bpf::open_pin(pin) {
            Ok(link) => {
                let info = bpf::link_info(link.as_fd())?;
                if is_alive(&info) {
                    if info.program == id {
                        return Ok(Outcome::Unchanged);
                    }
                    bpf::replace_program(link.as_fd(), program)?;
                    return Ok(Outcome::Replaced);
                }
                // The device or cgroup is gone, and the number was given again.
                fs::remove_file(pin)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        bpf::pin(attach()?.as_fd(), pin)?;
        Ok(Outcome::Attached)
    }

    /// The same by a filter of a clsact qdisc.
    fn by_filter(&self, program: &'static str, fd: BorrowedFd<'_>, id: u32, ifindex: u32) -> io::Result<Outcome> {
        let mut netlink = Netlink::open()?;
        match netlink.carry_out_one(
            RouteNetlinkMessage::NewQueueDiscipline(clsact(ifindex)),
            NLM_F_CREATE | NLM_F_EXCL,
        ) {
            Err(error) if error.raw_os_error() != Some(libc::EEXIST) => return Err(error),
            _ => {}
        }
        let present = self.filters(&mut netlink, ifindex, side(program))?;
        let ours = present.iter().find(|filter| filter.priority == self.priority);
        if ours.is_some_and(|filter| filter.program == id) {
            return Ok(Outcome::Unchanged);
        }
        let mut message = filter(ifindex, side(program), self.priority);
        message.attributes = vec![
            TcAttribute::Kind("bpf".into()),
            TcAttribute::Options(vec![
                TcOption::Bpf(TcFilterBpfOption::ProgFd(fd.as_raw_fd() as u32)),
                TcOption::Bpf(TcFilterBpfOption::ProgName(program.into())),
                TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
            ]),
        ];
        netlink.carry_out_one(RouteNetlinkMessage::NewTrafficFilter(message), NLM_F_CREATE)?;
        Ok(if ours.is_some() {
            Outcome::Replaced
        } else {
            Outcome::Attached
        })
    }

    fn filters(&self, netlink: &mut Netlink, ifindex: u32, side: AttachType) -> io::Result<Vec<Filter>> {
        let mut filters = Vec::new();
        netlink.dump(
            RouteNetlinkMessage::GetTrafficFilter(filter(ifindex, side, 0)),
            |answer| {
                if let RouteNetlinkMessage::NewTrafficFilter(message) = answer
                    && let Some(program) = program_of(&message)
                {
                    filters.push(Filter {
                        priority: (message.header.info >> 16) as u16,
                        program,
                    });
                }
            },
        )?;
        Ok(filters)
    }

    /// Forgets links whose devices are gone. They do nothing, but their pins would pile up.
    pub fn forget_gone(&self) -> Result<(), AgentError> {
        for (pin, info) in self.links()? {
            if info.ifindex == 0 && info.cgroup == 0 {
                fs::remove_file(&pin).tried(|| format!("removing {}", pin.display()))?;
            }
        }
        Ok(())
    }

    /// Forgets the link of a veth that is being removed.
    pub fn forget(&self, ifindex: u32) {
        let _ = fs::remove_file(self.pin(FROM_CONTAINER, ifindex));
    }

    /// Detaches programs of this instance that hang on a device beside the pinned link (an earlier daemon lost its pin while another process
    /// held the link): packets would meet them twice. Whose a program is, the maps it uses tell.
    pub fn reap_duplicates(&self, maps: &Maps, ifindex: u32) -> io::Result<usize> {
        if self.clsact.load(Ordering::Relaxed) {
            return Ok(0);
        }
        let (ours, mut reaped) = (maps.ids()?, 0);
        let mut pinned = Vec::new();
        for program in CLASSIFIERS {
            if let Ok(link) = bpf::open_pin(&self.pin(program, ifindex)) {
                pinned.push(bpf::link_info(link.as_fd())?.id);
            }
        }
        for side in [AttachType::TcxIngress, AttachType::TcxEgress] {
            for (program, link) in bpf::attached_to_device(ifindex, side)? {
                let Ok(program) = bpf::program_by_id(program) else {
                    continue;
                };
                let info = bpf::program_info(program.as_fd())?;
                if link == 0 || pinned.contains(&link) || !info.maps.iter().any(|map| ours.contains(map)) {
                    continue;
                }
                tracing::warn!(
                    ifindex,
                    program = info.name,
                    "detaching a program of an earlier daemon that hangs here twice"
                );
                bpf::detach(bpf::link_by_id(link)?.as_fd())?;
                reaped += 1;
            }
        }
        Ok(reaped)
    }

    fn links(&self) -> Result<Vec<(PathBuf, bpf::LinkInfo)>, AgentError> {
        let entries = fs::read_dir(&self.directory).tried(|| format!("reading {}", self.directory.display()))?;
        let mut links = Vec::new();
        for pin in entries.flatten().map(|entry| entry.path()) {
            let info = bpf::open_pin(&pin).and_then(|link| bpf::link_info(link.as_fd()));
            match info {
                Ok(info) => links.push((pin, info)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).tried(|| format!("asking for the link {}", pin.display())),
            }
        }
        links.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(links)
    }

    /// Every program and where it is attached; `devices` tells names by index.
    pub fn view(&self, devices: &BTreeMap<u32, String>, names: &Names) -> Result<Vec<view::Program>, AgentError> {
        let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut without_link = devices.clone();
        for (pin, info) in self.links()? {
            let name = pin.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let program = name.split('-').next().unwrap_or_default().to_owned();
            if info.ifindex != 0 {
                without_link.remove(&info.ifindex);
                let device = devices
                    .get(&info.ifindex)
                    .cloned()
                    .unwrap_or_else(|| format!("device {}", info.ifindex));
                places.entry(program).or_default().push(device);
            } else if let (true, Ok((path, _))) = (info.cgroup != 0, &self.cgroup) {
                places.entry(program).or_default().push(path.display().to_string());
            }
        }
        let clsact = self.clsact.load(Ordering::Relaxed);
        without_link.retain(|_, device| clsact || names.is_our_name(device));
        for (program, devices) in self.filters_by_program(&without_link)? {
            places.entry(program).or_default().extend(devices);
        }
        let mut program = |name: &str, by: &str| view::Program {
            name: name.to_owned(),
            attached_to: places.remove(name).unwrap_or_default(),
            by: by.to_owned(),
        };
        let classifiers = CLASSIFIERS.map(|name| program(name, if clsact { "clsact" } else { "tcx" }));
        Ok(classifiers
            .into_iter()
            .chain(SOCKET_HOOKS.map(|name| program(name, "cgroup")))
            .collect())
    }

    fn filters_by_program(&self, devices: &BTreeMap<u32, String>) -> Result<BTreeMap<String, Vec<String>>, AgentError> {
        let asked = || "asking for clsact filters".to_owned();
        let mut netlink = Netlink::open().tried(asked)?;
        let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (ifindex, name) in devices {
            for side in [AttachType::TcxIngress, AttachType::TcxEgress] {
                for filter in self.filters(&mut netlink, *ifindex, side).tried(asked)? {
                    if filter.priority == self.priority
                        && let Ok(info) =
                            bpf::program_by_id(filter.program).and_then(|fd| bpf::program_info(fd.as_fd()))
                    {
                        places.entry(info.name).or_default().push(name.clone());
                    }
                }
            }
        }
        Ok(places)
    }
}

/// Takes the filters of an instance off a device, and the qdisc with them when it holds nothing else.
pub fn remove_filters(names: &Names, ifindex: u32) -> io::Result<()> {
    let mut netlink = Netlink::open()?;
    let (mut ours, mut others) = (Vec::new(), 0);
    for side in [AttachType::TcxIngress, AttachType::TcxEgress] {
        netlink.dump(
            RouteNetlinkMessage::GetTrafficFilter(filter(ifindex, side, 0)),
            |answer| {
                if let RouteNetlinkMessage::NewTrafficFilter(message) = answer {
                    match (message.header.info >> 16) as u16 {
                        priority if priority == names.filter_priority() => ours.push(side),
                        _ => others += 1,
                    }
                }
            },
        )?;
    }
    if ours.is_empty() {
        return Ok(());
    }
    if others == 0 {
        return netlink.carry_out_one(RouteNetlinkMessage::DelQueueDiscipline(clsact(ifindex)), 0);
    }
    for side in ours {
        let message = filter(ifindex, side, names.filter_priority());
        match netlink.carry_out_one(RouteNetlinkMessage::DelTrafficFilter(message), 0) {
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

struct Filter {
    priority: u16,
    program: u32,
}

fn program_of(message: &TcMessage) -> Option<u32> {
    message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => options.iter().find_map(|option| match option {
            TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => Some(*id),
            _ => None,
        }),
        _ => None,
    })
}

/// `tc qdisc … dev … clsact`
fn clsact(ifindex: u32) -> TcMessage {
    let mut message = TcMessage::with_index(ifindex as i32);
    message.header.handle = TcHandle::from(0xffff_0000);
    message.header.parent = TcHandle::CLSACT;
    message.attributes = vec![TcAttribute::Kind("clsact".into())];
    message
}

/// `tc filter … dev … ingress|egress prio … handle 1 protocol all`
fn filter(ifindex: u32, side: AttachType, priority: u16) -> TcMessage {
    const ETH_P_ALL: u16 = 3;
    let mut message = TcMessage::with_index(ifindex as i32);
    let minor = if side == AttachType::TcxEgress {
        TcHandle::MIN_EGRESS
    } else {
        TcHandle::MIN_INGRESS
    };
    message.header.parent = TcHandle::from(0xffff_0000 | u32::from(minor));
    if priority != 0 {
        message.header.handle = TcHandle::from(1);
        message.header.info = u32::from(priority) << 16 | u32::from(ETH_P_ALL.to_be());
    }
    message
}

/// Does the kernel know tcx at all? EINVAL alone may have other reasons.
fn has_tcx(ifindex: u32) -> bool {
    bpf::attached_to_device(ifindex, AttachType::TcxIngress).is_ok()
}
