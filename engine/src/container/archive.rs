//! Files copied out of a container and into it.

use std::{io, os::fd::AsFd};

use bytes::Bytes;
use sluice_image::files::{self, Found, Laying, Packing, Style};
use sluice_model::container::MountKind;
use tokio::sync::mpsc;

use crate::{
    Engine, EngineError,
    blocking::blocking,
    chunks::{ChannelReader, ChannelWriter, Chunks},
    container::{owners, view::View},
};

/// How files are put into a container.
#[derive(Clone, Copy, Debug, Default)]
pub struct PutOptions {
    /// A directory is not replaced by something else, nor the other way round.
    pub keep_kinds: bool,
    /// Everything belongs to the container's user.
    pub own: bool,
}

impl Engine {
    /// What stands at a path of a container.
    pub async fn look_at_path(&self, name: &str, path: &str) -> Result<Found, EngineError> {
        let (held, path) = (self.containers.find(name)?, checked(path)?);
        let missing = missing(name, &path);
        self.carry_out(|engine| async move {
            let view = engine.open_view(&held).await?;
            let (view, found) = in_view(view, move |view| Ok(files::look(view.root.as_fd(), &path)?)).await?;
            view.close().await;
            found?.ok_or(missing)
        })
        .await
    }

    /// What stands at a path of a container, and an archive of it.
    pub async fn copy_from(&self, name: &str, path: &str) -> Result<(Found, Chunks), EngineError> {
        let (held, path) = (self.containers.find(name)?, checked(path)?);
        let missing = missing(name, &path);
        self.carry_out(|engine| async move {
            let view = engine.open_view(&held).await?;
            let asked = path.clone();
            let (view, found) = in_view(view, move |view| Ok(files::look(view.root.as_fd(), &asked)?)).await?;
            let found = match found.and_then(|found| found.ok_or(missing)) {
                Ok(found) => found,
                Err(error) => {
                    view.close().await;
                    return Err(error);
                }
            };
            let (mut writer, chunks) = ChannelWriter::new();
            let top = found.name.clone();
            let owners = held.look(|container| container.id_map.as_ref().map(owners::of_files));
            engine.tell(&held, "archive-path", &[]);
            tokio::spawn(async move {
                let packed = in_view(view, move |view| {
                    let packing = Packing {
                        name: &top,
                        style: Style::Plain,
                        one_file_system: false,
                        scaffold: &[],
                        owners: owners.as_ref(),
                        timeless: false,
                    };
                    files::pack(view.root.as_fd(), &path, packing, &mut writer).map_err(|why| writer.fail(&why))?;
                    Ok(())
                });
                if let Ok((view, _)) = packed.await {
                    view.close().await;
                }
            });
            Ok((found, chunks))
        })
        .await
    }

    /// Lays an archive down in the directory at a path of a container.
    pub async fn copy_to(
        &self,
        name: &str,
        path: &str,
        tar: mpsc::Receiver<io::Result<Bytes>>,
        options: PutOptions,
    ) -> Result<(), EngineError> {
        let (held, path) = (self.containers.find(name)?, checked(path)?);
        let missing = missing(name, &path);
        self.carry_out(|engine| async move {
            let view = engine.open_view(&held).await?;
            let container = held.record();
            let (view, put) = in_view(view, move |view| {
                let root = view.root.as_fd();
                match files::find(root, &path) {
                    Err(why) if why.kind() == io::ErrorKind::NotADirectory => {
                        return Err(EngineError::failed("extraction point is not a directory"));
                    }
                    Err(_) => return Err(missing),
                    Ok(directory) => {
                        if files::is_read_only(directory.as_fd()) {
                            let is_volume = !files::is_same_mount(root, directory.as_fd());
                            return Err(EngineError::failed(match is_volume {
                                true => "mounted volume is marked read-only",
                                false => "container rootfs is marked read-only",
                            }));
                        }
                    }
                }
                let owner = match options.own && !container.config.user.is_empty() {
                    true => Some(owner(view, &container.config.user)?),
                    false => None,
                };
                let laying = Laying {
                    keep_kinds: options.keep_kinds,
                    owner,
                    mode: None,
                    owners: container.id_map.as_ref().map(owners::of_files),
                };
                files::lay_down(root, &path, &mut ChannelReader::new(tar), laying).map_err(processing)
            })
            .await?;
            for (mount, source) in engine.sources(&held.record()) {
                if mount.kind == MountKind::Volume {
                    engine.sizes.forget(&source);
                }
            }
            view.close().await;
            put?;
            engine.tell(&held, "extract-to-dir", &[]);
            Ok(())
        })
        .await
    }

    /// The whole file system of a container as an archive, without what is mounted in it.
    pub async fn export_container(&self, name: &str) -> Result<Chunks, EngineError> {
        let held = self.containers.find(name)?;
        self.carry_out(|engine| async move {
            let view = engine.open_root(&held).await?;
            let (mut writer, chunks) = ChannelWriter::new();
            engine.tell(&held, "export", &[]);
            let owners = held.look(|container| container.id_map.as_ref().map(owners::of_files));
            tokio::spawn(async move {
                let packed = in_view(view, move |view| {
                    let packing = Packing {
                        name: b"",
                        style: Style::Plain,
                        one_file_system: true,
                        scaffold: &[],
                        owners: owners.as_ref(),
                        timeless: false,
                    };
                    files::pack(view.root.as_fd(), b"/", packing, &mut writer).map_err(|why| writer.fail(&why))?;
                    Ok(())
                });
                if let Ok((view, _)) = packed.await {
                    view.close().await;
                }
            });
            Ok(chunks)
        })
        .await
    }
}

/// Work on files of a view, on a thread that may block; the view comes back.
pub(crate) async fn in_view<T: Send + 'static>(
    view: View,
    work: impl FnOnce(&View) -> Result<T, EngineError> + Send + 'static,
) -> Result<(View, Result<T, EngineError>), EngineError> {
    blocking(move || {
        let done = work(&view);
        Ok((view, done))
    })
    .await
}

pub(crate) fn owner(view: &View, user: &str) -> Result<(u32, u32), EngineError> {
    use std::os::fd::AsRawFd;
    // by descriptor: the runtime resolves what it reads within this root, and follows no link in its place
    let root = format!("/proc/self/fd/{}/.", view.root.as_raw_fd());
    let found = sluice_runtime::resolve_user(std::path::Path::new(&root), user)?;
    Ok((found.uid, found.gid))
}

/// Docker gives 500 for an archive it can't use, and says what it was doing.
fn processing(why: sluice_image::ImageError) -> EngineError {
    EngineError::failed(format!("Error processing tar file: {why}"))
}

fn checked(path: &str) -> Result<Vec<u8>, EngineError> {
    match path {
        "" => Err(EngineError::invalid("bad parameter: path cannot be empty")),
        path if path.contains('\0') => Err(EngineError::invalid("bad parameter: path holds a NUL")),
        path => Ok(path.as_bytes().to_vec()),
    }
}

fn missing(container: &str, path: &[u8]) -> EngineError {
    EngineError::not_found(format!(
        "Could not find the file {} in container {container}",
        String::from_utf8_lossy(path)
    ))
}
