//! All routes on one page: what we answer, and what we do not yet. `docs/api.md` is written from this table.

use std::sync::Arc;

use axum::{
    Extension, Router,
    handler::Handler,
    http::{Method, StatusCode},
    middleware,
    routing::{self, MethodFilter, MethodRouter},
};
use sluice_engine::Engine;

use crate::{
    door,
    error::ApiError,
    metrics::{Measures, timed},
    routes::{build, container, events, exec, image, metrics, network, policy, sluice, system, volume},
};

/// A route.
#[cfg_attr(not(test), expect(dead_code, reason = "read by the test that writes docs/api.md"))]
pub(crate) struct Line {
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    /// What it does, or would do.
    pub(crate) sentence: &'static str,
    pub(crate) offered: bool,
    answer: MethodRouter<Arc<Engine>>,
}

/// Every route, resource by resource.
#[rustfmt::skip]
pub(crate) fn table() -> Vec<(&'static str, Vec<Line>)> {
    use container::{files, life, look, make, streams};
    vec![
        ("System", vec![
            get("/_ping", system::ping, "Answers `OK`; its headers tell the version (also HEAD)"),
            get("/version", system::version, "Versions of the daemon, its API and the kernel"),
            get("/info", system::info, "Counts and facts"),
            get("/events", events::events, "What happens, a line of JSON each; `since`, `until`, `filters`"),
            get("/system/df", system::usage, "Disk usage; `type`"),
            post("/auth", system::login, "Checks a login at a registry"),
            missing(Method::POST, "/session", "Opens a session of BuildKit"),
            missing(Method::POST, "/grpc", "Speaks gRPC to BuildKit"),
        ]),
        ("Containers", vec![
            get("/containers/json", look::list, "Lists containers; `all`, `limit`, `size`, `filters`"),
            post("/containers/create", make::create, "Makes a container"),
            get("/containers/{id}/json", look::inspect, "All about a container"),
            get("/containers/{id}/top", look::top, "Its processes"),
            get("/containers/{id}/logs", streams::logs, "Its log; `follow`, `since`, `until`, `timestamps`, `tail`"),
            post("/containers/{id}/start", life::start, "Starts it"),
            post("/containers/{id}/stop", life::stop, "Stops it; `t`, `signal`"),
            post("/containers/{id}/restart", life::restart, "Stops and starts it; `t`, `signal`"),
            post("/containers/{id}/kill", life::kill, "Sends it a signal"),
            post("/containers/{id}/pause", life::pause, "Freezes it"),
            post("/containers/{id}/unpause", life::unpause, "Thaws it"),
            post("/containers/{id}/rename", life::rename, "Gives it another name"),
            post("/containers/{id}/update", life::update, "Changes its limits and restart policy"),
            post("/containers/{id}/resize", life::resize, "Sets the size of its terminal"),
            post("/containers/{id}/attach", streams::attach, "Connects to its streams; `logs`, `stream`, `stdin`, `stdout`, `stderr`, `detachKeys`"),
            post("/containers/{id}/wait", streams::wait, "Waits for its end; `condition`"),
            delete("/containers/{id}", make::remove, "Removes it; `force`, `v`"),
            get("/containers/{id}/attach/ws", streams::attach_socket, "Connects to its streams by WebSocket"),
            get("/containers/{id}/stats", streams::stats, "What it uses; `stream`, `one-shot`"),
            get("/containers/{id}/changes", files::changes, "What it changed in its file system"),
            get("/containers/{id}/export", files::export, "Its file system as a tar stream, without what is mounted in it"),
            head("/containers/{id}/archive", files::look, "Facts about a file in it; `path`"),
            get("/containers/{id}/archive", files::get, "Copies files out of it; `path`"),
            put("/containers/{id}/archive", files::put, "Copies files into it; `path`, `noOverwriteDirNonDir`, `copyUIDGID`"),
            post("/containers/prune", make::prune, "Removes all that do not run; `filters`"),
            post("/commit", files::commit, "Makes an image of a container; `container`, `repo`, `tag`, `author`, `comment`, `changes`, `pause`"),
        ]),
        ("Exec", vec![
            post("/containers/{id}/exec", exec::create, "Prepares a further process"),
            post("/exec/{id}/start", exec::start, "Starts it and connects to its streams; `Detach`"),
            post("/exec/{id}/resize", exec::resize, "Sets the size of its terminal"),
            get("/exec/{id}/json", exec::inspect, "How it is, or how it ended"),
        ]),
        ("Images", vec![
            get("/images/json", image::list, "Lists images; `filters`"),
            post("/images/create", image::create, "Pulls an image (`fromImage`, `tag`, `platform`), or makes one of a tar stream (`fromSrc=-`, or a URL; `repo`, `tag`, `message`, `changes`)"),
            post("/images/load", image::load, "Reads an archive made by `docker save`"),
            get("/images/{name}/json", image::inspect, "All about an image"),
            get("/images/{name}/history", image::history, "The steps it was made in"),
            post("/images/{name}/tag", image::tag, "Gives it a further name"),
            delete("/images/{name}", image::remove, "Removes a name or an image; `force`"),
            post("/images/{name}/push", image::push, "Sends it to a registry; `tag`"),
            get("/images/{name}/get", image::save, "Saves it as an archive"),
            get("/images/get", image::save_all, "Saves several as an archive; `names`"),
            refused(Method::GET, "/images/search", image::search, "Searches a registry"),
            post("/images/prune", image::prune, "Removes those without a use; `filters`"),
            post("/build", build::build, "Builds an image of a Dockerfile, as the classic builder does"),
            post("/build/prune", build::prune, "Removes what builds left and nothing stands on; `all`, `filters`"),
            post("/build/cancel", build::cancel, "Stops a build; `id`"),
            get("/distribution/{name}/json", image::distribution, "Asks a registry about an image"),
        ]),
        ("Networks", vec![
            get("/networks", network::list, "Lists networks; `filters`"),
            get("/networks/{id}", network::inspect, "All about a network, and who is on it"),
            delete("/networks/{id}", network::remove, "Removes it"),
            post("/networks/create", network::create, "Makes one, of the driver `bridge`"),
            post("/networks/{id}/connect", network::connect, "Puts a container on it; a running one gets a device at once"),
            post("/networks/{id}/disconnect", network::disconnect, "Takes a container off it; `Force`"),
            post("/networks/prune", network::prune, "Removes those nobody is on; `filters`"),
        ]),
        ("Volumes", vec![
            get("/volumes", volume::list, "Lists volumes; `filters`"),
            post("/volumes/create", volume::create, "Makes one"),
            get("/volumes/{name}", volume::inspect, "All about a volume"),
            missing(Method::PUT, "/volumes/{name}", "Changes a volume of a cluster"),
            delete("/volumes/{name}", volume::remove, "Removes it; `force`"),
            post("/volumes/prune", volume::prune, "Removes those without a use; `filters`"),
        ]),
        ("Plugins", vec![
            missing(Method::GET, "/plugins", "Lists plugins"),
            missing(Method::GET, "/plugins/{*rest}", "All about a plugin"),
            missing(Method::POST, "/plugins/{*rest}", "Installs and changes plugins"),
            missing(Method::DELETE, "/plugins/{*rest}", "Removes a plugin"),
        ]),
        ("Swarm", vec![
            missing(Method::GET, "/swarm", "About the swarm"),
            missing(Method::GET, "/swarm/{*rest}", "Its unlock key"),
            missing(Method::POST, "/swarm/{*rest}", "Makes, joins, changes and leaves a swarm"),
            missing(Method::GET, "/nodes", "Lists nodes"),
            missing(Method::GET, "/nodes/{*rest}", "All about a node"),
            missing(Method::POST, "/nodes/{*rest}", "Changes a node"),
            missing(Method::DELETE, "/nodes/{*rest}", "Removes a node"),
            missing(Method::GET, "/services", "Lists services"),
            missing(Method::GET, "/services/{*rest}", "All about a service, its log"),
            missing(Method::POST, "/services/{*rest}", "Makes or changes a service"),
            missing(Method::DELETE, "/services/{*rest}", "Removes a service"),
            missing(Method::GET, "/tasks", "Lists tasks"),
            missing(Method::GET, "/tasks/{*rest}", "All about a task, its log"),
            missing(Method::GET, "/secrets", "Lists secrets"),
            missing(Method::GET, "/secrets/{*rest}", "All about a secret"),
            missing(Method::POST, "/secrets/{*rest}", "Makes or changes a secret"),
            missing(Method::DELETE, "/secrets/{*rest}", "Removes a secret"),
            missing(Method::GET, "/configs", "Lists configs"),
            missing(Method::GET, "/configs/{*rest}", "All about a config"),
            missing(Method::POST, "/configs/{*rest}", "Makes or changes a config"),
            missing(Method::DELETE, "/configs/{*rest}", "Removes a config"),
        ]),
        ("Sluice's own", vec![
            get("/metrics", metrics::metrics, "Figures for Prometheus (docs/metrics.md)"),
            get("/sluice/v1/status", sluice::status, "How the datapath is: tables, programs, troubles"),
            get("/sluice/v1/cluster", sluice::cluster, "The hosts that share networks, how far this one has come, how etcd is"),
            get("/sluice/v1/flows", sluice::flows, "The flow table, with names; `sort`, `limit`, and filters `container`, `label`, `network`, `address`, `port`, `protocol`, `state`"),
            get("/sluice/v1/endpoints", sluice::endpoints, "What each endpoint of this host has received and sent since its container started"),
            get("/sluice/v1/exposure", sluice::exposure, "What of this host's containers is reached from where, and what the host's firewall believes of it"),
            get("/sluice/v1/policies", policy::list, "All policies, whom they select, and how often their rules have spoken on this host"),
            put("/sluice/v1/policies", policy::apply, "Puts policies in force, all of a text of YAML or JSON or none; `dry-run` says what would change"),
            get("/sluice/v1/policies/{name}", policy::inspect, "One policy, as above"),
            put("/sluice/v1/policies/{name}", policy::apply_one, "Puts one policy in force; `dry-run`"),
            delete("/sluice/v1/policies/{name}", policy::remove, "Takes a policy away"),
            get("/sluice/v1/standing-rules", policy::standing, "What networks, links and published ports say about who may speak to whom, and the entries of the datapath that it is: judged before policies"),
            post("/sluice/v1/judge", policy::test, "What policies say of a conversation, with those of the body in the place of those of the same names; `from`, `to`, `traffic`"),
            get("/sluice/v1/explain", policy::explain, "What the real programs would make of a conversation's first packet, step by step; `from`, `to`, `traffic`. Leaves nothing and counts nothing"),
            get("/sluice/v1/drops", sluice::drops, "Dropped packets by reason, direction and endpoint; with `follow`, each as it dies, a line of JSON"),
            get("/sluice/v1/monitor", sluice::monitor, "What happens from now on, a line of JSON each (docs/monitor.md): drops and, with `flows`, conversations that open and close; `frames`, and filters `event`, `container`, `label`, `network`, `address`, `port`, `protocol`, `verdict`, `reason`"),
            get("/sluice/v1/drops/telling", sluice::telling, "Who follows the drops, and how many were not told one by one"),
        ]),
    ]
}

/// The door and behind it everything in the table; for the rest, Docker's sentences.
pub fn router(engine: Arc<Engine>, measures: Arc<Measures>) -> Router {
    let measured = measures.clone();
    let lines = table().into_iter().flat_map(|(_, lines)| lines);
    let routes = lines
        .fold(Router::new(), |router, line| router.route(line.path, line.answer))
        .route_layer(middleware::from_fn(move |request, next| {
            timed(measured.clone(), request, next)
        }))
        .method_not_allowed_fallback(|method: Method| async move {
            let message = format!("method {method} is not allowed here");
            ApiError {
                status: StatusCode::METHOD_NOT_ALLOWED,
                message,
            }
        })
        .fallback(|| async {
            ApiError {
                status: StatusCode::NOT_FOUND,
                message: "page not found".to_owned(),
            }
        })
        // Bodies are limited where they are read: JSON to some megabytes, archives not at all.
        .layer(axum::extract::DefaultBodyLimit::disable())
        .layer(Extension(measures))
        .with_state(engine);
    // The door stands outside of the routing, because it changes the path that is routed.
    Router::new()
        .fallback_service(routes)
        .layer(middleware::from_fn(door::door))
}

/// Figures and nothing else, for a socket that more may reach than may use the API.
pub fn metrics_router(engine: Arc<Engine>, measures: Arc<Measures>) -> Router {
    Router::new()
        .route("/metrics", routing::get(metrics::metrics))
        .layer(Extension(measures))
        .with_state(engine)
}

// === words of the table ===

fn get<H: Handler<T, Arc<Engine>>, T: 'static>(path: &'static str, handler: H, sentence: &'static str) -> Line {
    Line {
        method: Method::GET,
        path,
        sentence,
        offered: true,
        answer: routing::get(handler),
    }
}

fn post<H: Handler<T, Arc<Engine>>, T: 'static>(path: &'static str, handler: H, sentence: &'static str) -> Line {
    Line {
        method: Method::POST,
        path,
        sentence,
        offered: true,
        answer: routing::post(handler),
    }
}

fn delete<H: Handler<T, Arc<Engine>>, T: 'static>(path: &'static str, handler: H, sentence: &'static str) -> Line {
    Line {
        method: Method::DELETE,
        path,
        sentence,
        offered: true,
        answer: routing::delete(handler),
    }
}

fn head<H: Handler<T, Arc<Engine>>, T: 'static>(path: &'static str, handler: H, sentence: &'static str) -> Line {
    Line {
        method: Method::HEAD,
        path,
        sentence,
        offered: true,
        answer: routing::head(handler),
    }
}

fn put<H: Handler<T, Arc<Engine>>, T: 'static>(path: &'static str, handler: H, sentence: &'static str) -> Line {
    Line {
        method: Method::PUT,
        path,
        sentence,
        offered: true,
        answer: routing::put(handler),
    }
}

/// A route of Docker's that is refused in words of its own.
fn refused<H: Handler<T, Arc<Engine>>, T: 'static>(
    method: Method,
    path: &'static str,
    handler: H,
    sentence: &'static str,
) -> Line {
    let filter = MethodFilter::try_from(method.clone()).unwrap_or(MethodFilter::GET);
    Line {
        method,
        path,
        sentence,
        offered: false,
        answer: routing::on(filter, handler),
    }
}

/// A route of Docker's that is not answered yet: 501 and a sentence that names it.
fn missing(method: Method, path: &'static str, sentence: &'static str) -> Line {
    let named = format!("{method} {path}");
    let refuse = move || async move { ApiError::not_offered(named) };
    let filter = MethodFilter::try_from(method.clone()).unwrap_or(MethodFilter::GET);
    Line {
        method,
        path,
        sentence,
        offered: false,
        answer: routing::on(filter, refuse),
    }
}
