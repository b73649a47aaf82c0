//! Every map, a line each. The kernel side gets its statics from this table, the agent its typed handles, the docs their page.

/// Calls `$each!` with the table: `name: kind<key, value>, capacity, "sentence";`.
///
/// Kinds are those of aya, and `SparseHashMap`, which takes memory as it fills (`HashMap`, `LruHashMap`, `LruPerCpuHashMap`, `Array`, `PerCpuArray`, `LpmTrie`, `RingBuf`). The capacity is the default;
/// the agent may set another when it loads. That of a `RingBuf`, which has no keys, is in bytes. Names are short: the kernel shows 15 characters.
#[macro_export]
macro_rules! for_each_map {
    ($each:ident) => {
        $each! {
            EPOCH: Array<u32, u32>, 1, "The epoch: moves when ports, routes or policy change, so that every flow is judged again on its next packet.";
            GENERATIONS: Array<u32, u32>, 65_536, "The generation of each endpoint number: a flow of an earlier one is dead.";
            SETTINGS: Array<u32, Settings>, 1, "What may be changed while packets pass: limits.";
            SWEPT: Array<u32, u64>, 1, "When the agent last looked for flows that are over (CLOCK_MONOTONIC, ns): while it does, packets need not.";
            TALLIES: Array<u32, Tally>, 65_536, "How many flows each endpoint number holds.";
            NETWORKS: Array<u32, Network>, 4_096, "Networks by number: gateway, MTU and rules.";
            ATTACHMENTS: HashMap<u32, Attachment>, 65_536, "What may be said by a veth, by the ifindex of its host end.";
            ENDPOINTS4: HashMap<EndpointKey<Ipv4>, Endpoint>, 65_536, "Who lives at an IPv4 address of a network.";
            ENDPOINTS6: HashMap<EndpointKey<Ipv6>, Endpoint>, 65_536, "Who lives at an IPv6 address of a network.";
            SUBNETS4: LpmTrie<Ipv4Address, u32>, 4_096, "The network an IPv4 address belongs to, by longest prefix.";
            SUBNETS6: LpmTrie<Ipv6Address, u32>, 4_096, "The network an IPv6 address belongs to, by longest prefix.";
            LOCAL4: HashMap<Ipv4Address, LocalAddress>, 1_024, "The host's own IPv4 addresses, gateways included.";
            LOCAL6: HashMap<Ipv6Address, LocalAddress>, 1_024, "The host's own IPv6 addresses, gateways included.";
            UPLINKS4: HashMap<u32, Uplink<Ipv4>>, 256, "NICs by ifindex, and the IPv4 address that masqueraded flows leave with.";
            UPLINKS6: HashMap<u32, Uplink<Ipv6>>, 256, "NICs by ifindex, and the IPv6 address that masqueraded flows leave with.";
            PUBLISHED4: HashMap<PublishKey<Ipv4>, Publication<Ipv4>>, 65_536, "Published IPv4 ports: who answers at an address and port of the host, or of an endpoint of a routed network.";
            PUBLISHED6: HashMap<PublishKey<Ipv6>, Publication<Ipv6>>, 65_536, "Published IPv6 ports: who answers at an address and port of the host, or of an endpoint of a routed network.";
            RANGES4: LpmTrie<RangeKey<Ipv4>, Publication<Ipv4>>, 65_536, "Published ranges of IPv4 ports, by the prefixes that they consist of.";
            RANGES6: LpmTrie<RangeKey<Ipv6>, Publication<Ipv6>>, 65_536, "Published ranges of IPv6 ports, by the prefixes that they consist of.";
            SOURCES4: LpmTrie<SourceKey<Ipv4>, u32>, 65_536, "Who may use an endpoint's published IPv4 ports, where not everybody may.";
            SOURCES6: LpmTrie<SourceKey<Ipv6>, u32>, 65_536, "Who may use an endpoint's published IPv6 ports, where not everybody may.";
            LINKS: HashMap<LinkKey, u32>, 16_384, "Ports that a link opens where the endpoints of a network may not speak to each other.";
            SUBJECTS: SparseHashMap<u32, Subject>, 65_536, "What documents say of an endpoint number, by two numbers that stand for it.";
            KNOWN4: LpmTrie<Ipv4Address, Groups>, 262_144, "The groups that an IPv4 address belongs to, by longest prefix, where a document speaks of some.";
            KNOWN6: LpmTrie<Ipv6Address, Groups>, 262_144, "The groups that an IPv6 address belongs to, by longest prefix, where a document speaks of some.";
            CELLS: SparseHashMap<CellKey, Cell>, 262_144, "What documents say of a subject and a group.";
            LISTS: LpmTrie<ListKey, Judgement>, 262_144, "What they say where that differs by protocol and port.";
            VERDICTS: SparseHashMap<VerdictKey, Counter>, 65_536, "Packets that were judged by a rule of a document.";
            MEMBERS: HashMap<MemberKey, u32>, 16_384, "Who hears what is said to many in a network, by place: the host end of its veth.";
            RESERVED: Array<u32, u64>, 8_192, "Published ports without their address, a bit each: what bind() of host processes is refused.";
            HOSTS: Array<u32, Host>, 4_096, "The other hosts of the cluster by number: where encapsulated packets are sent, and by which way.";
            SENDERS: HashMap<Ipv6Address, u32>, 16_384, "The number of the host that sends from an address of the underlay (IPv4: as an IPv4-mapped one), or of its encrypted way (marked).";
            VNIS: HashMap<u32, u32>, 4_096, "The number of the network that encapsulated packets of a VNI belong to; that of an encrypted one is marked.";
            REMOTES4: SparseHashMap<EndpointKey<Ipv4>, Remote>, 131_072, "Who lives at an IPv4 address of a network on another host.";
            REMOTES6: SparseHashMap<EndpointKey<Ipv6>, Remote>, 131_072, "Who lives at an IPv6 address of a network on another host.";
            FLOWS4: HashMap<FlowKey<Ipv4>, Flow<Ipv4>>, 131_072, "Answered IPv4 flows, an entry per direction. Never evicts.";
            FLOWS6: HashMap<FlowKey<Ipv6>, Flow<Ipv6>>, 131_072, "Answered IPv6 flows, an entry per direction. Never evicts.";
            OPENING4: LruHashMap<FlowKey<Ipv4>, Flow<Ipv4>>, 32_768, "IPv4 flows that nobody has answered yet. The oldest give way.";
            OPENING6: LruHashMap<FlowKey<Ipv6>, Flow<Ipv6>>, 32_768, "IPv6 flows that nobody has answered yet. The oldest give way.";
            OPENED: Array<u32, u64>, 1, "When a flow of OPENING4 or OPENING6 last had a packet (CLOCK_MONOTONIC, ns): long ago, and nobody looks there.";
            FRAGMENTS4: LruHashMap<FragmentKey<Ipv4>, FragmentPorts>, 4_096, "The ports of IPv4 datagrams whose later fragments are awaited.";
            FRAGMENTS6: LruHashMap<FragmentKey<Ipv6>, FragmentPorts>, 4_096, "The ports of IPv6 datagrams whose later fragments are awaited.";
            PEERS4: LruHashMap<SocketPeerKey<Ipv4>, SocketPeer<Ipv4>>, 65_536, "AF_INET sockets of the host that were sent to an endpoint, and the peer they are shown.";
            PEERS6: LruHashMap<SocketPeerKey<Ipv6>, SocketPeer<Ipv6>>, 65_536, "AF_INET6 sockets of the host that were sent to an endpoint, and the peer they are shown.";
            RESOLVERS: HashMap<u64, Resolver>, 65_536, "Where the sockets of a network namespace (by its cookie) find the resolver when they ask at 127.0.0.11.";
            ASKING: Array<u32, Asking>, 65_536, "How much each endpoint number asks the resolver.";
            DROPS: LruPerCpuHashMap<DropKey, Counter>, 8_192, "Drops by reason, direction and endpoint.";
            LISTENERS: Array<u32, u32>, 1, "What those who follow want to hear of (bits): for nobody nothing is written.";
            EVENTS: RingBuf<(), DropEvent>, 262_144, "Drops as they happen, and conversations as they open and close, until they are read (bytes).";
            EVENT_PACE: PerCpuArray<u32, EventPace>, 64, "How much was told of each reason to die, and of conversations, and how much was not.";
        }
    };
}
