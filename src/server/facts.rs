//! What can be known of a cell's server before it starts: versions of what will run, and the
//! revision of its model. Files are read; nothing is started.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use tokio::runtime::Handle;

use super::docker::image::Content;
use super::{docker, in_path};
use crate::config::Settings;
use crate::matrix::Cell;
use crate::plan::docker_spec::Mount;
use crate::plan::lmcache_keys::Version;
use crate::plan::server::Launcher;
use crate::record::schema::ContainerRecord;

/// Python packages whose versions decide what a server does, by the names of their metadata.
const PACKAGES: [&str; 4] = ["vllm", "lmcache", "torch", "transformers"];

/// Files of a model up to this size count with their bytes, larger ones with their size: weights
/// are gigabytes, and another revision has another index or configuration.
const READ_UP_TO_BYTES: u64 = 1 << 20;

/// Name of the id of a container's image.
const IMAGE: &str = "version.image";
/// Name of its registry's digest of it.
const DIGEST: &str = "image.digest";

/// Facts by name: `version.vllm`, `model.revision`, `model.tokenizer`. What is not known is absent.
pub(crate) fn of(cell: &Cell, settings: &Settings, runtime: &Handle) -> BTreeMap<String, String> {
    let mut facts = BTreeMap::new();
    match cell.resolved.server.launcher {
        Launcher::Sim => {
            let version = crate::sim::VERSION.to_owned();
            facts.insert("version.server".to_owned(), version);
            return facts;
        }
        Launcher::Process => {
            for (package, version) in packages(&settings.process.bin_dir) {
                facts.insert(format!("version.{package}"), version);
            }
        }
        Launcher::Docker => {
            facts.extend(docker::content(cell, runtime).map(|content| match content {
                Content::Here(id) => (IMAGE.to_owned(), id),
                Content::AtRegistry(digest) => (DIGEST.to_owned(), digest),
            }));
            if cell.resolved.server.is_simulated() {
                return facts;
            }
        }
        Launcher::External => return facts,
    }
    if let Some(model) = model_folder(cell, settings) {
        if let Some(revision) = model.revision {
            facts.insert("model.revision".to_owned(), revision);
        }
        if let Ok(tokenizer) = fs::read(model.folder.join("tokenizer.json")) {
            let hash = blake3::hash(&tokenizer).to_hex();
            facts.insert("model.tokenizer".to_owned(), hash[..16].to_owned());
        }
    }
    facts
}

/// What the containers of a server report about its image: both its id and its registry's digest, where
/// it has one. Before the server started, one of them may have been all that was known, or none.
pub(crate) fn of_containers(containers: &[ContainerRecord]) -> BTreeMap<String, String> {
    let mut facts = BTreeMap::new();
    // Sidecars come first.
    if let Some(server) = containers.last().filter(|last| docker::is_server(last)) {
        facts.insert(IMAGE.to_owned(), server.image_id.clone());
        let digest = server.digest.as_deref().and_then(docker::image::digest_of);
        facts.extend(digest.map(|digest| (DIGEST.to_owned(), digest.to_owned())));
    }
    facts
}

/// Folders of Python packages beside the programs in `bin_dir` (or those in PATH).
pub(super) fn package_folders(bin_dir: &Path) -> Vec<PathBuf> {
    beside(bin_dir, "")
}

/// What is called `name` in these folders.
fn beside(bin_dir: &Path, name: &str) -> Vec<PathBuf> {
    let Some(program) = program_folder(bin_dir) else {
        return Vec::new();
    };
    let pattern = program.join("../lib/python3*/site-packages").join(name);
    let found = glob::glob(&pattern.to_string_lossy()).into_iter().flatten();
    found.flatten().collect()
}

/// Versions of [`PACKAGES`] beside the programs in `bin_dir` (or those in PATH), from the names of
/// their `.dist-info` folders.
pub(crate) fn packages(bin_dir: &Path) -> BTreeMap<&'static str, String> {
    let mut versions = BTreeMap::new();
    for folder in beside(bin_dir, "*.dist-info") {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let Some((package, version)) = name
            .strip_suffix(".dist-info")
            .and_then(|name| name.split_once('-'))
        else {
            continue;
        };
        if let Some(known) = PACKAGES.iter().find(|known| **known == package) {
            versions.insert(*known, version.to_owned());
        }
    }
    versions
}

/// The version of LMCache that will serve `cell`, where it is known before the start: installed
/// beside the program, or named by the tag of LMCache's own image.
pub(crate) fn lmcache_version(cell: &Cell, settings: &Settings) -> Option<Version> {
    let server = &cell.resolved.server;
    match server.launcher {
        Launcher::Process => packages(&settings.process.bin_dir)
            .get("lmcache")?
            .parse()
            .ok(),
        Launcher::Docker => version_of_image(docker::lmcache_image_of(cell)?),
        Launcher::Sim | Launcher::External => None,
    }
}

/// The version of vLLM that will serve `cell`, where it is known before the start: installed beside
/// the program, or named by the tag of vLLM's own image.
pub(crate) fn vllm_version(cell: &Cell, settings: &Settings) -> Option<Version> {
    let server = &cell.resolved.server;
    match server.launcher {
        Launcher::Process => packages(&settings.process.bin_dir)
            .get("vllm")?
            .parse()
            .ok(),
        Launcher::Docker if !server.is_simulated() => {
            let (_, image) = server.docker.as_ref()?.image.rsplit_once("vllm/")?;
            let (name, tag) = image.split_once(':')?;
            (name == "vllm-openai").then_some(tag)?.parse().ok()
        }
        Launcher::Docker | Launcher::Sim | Launcher::External => None,
    }
}

/// `0.5.6` of `lmcache/vllm-openai:v0.5.6-cu129`; others' images may hold any version.
fn version_of_image(name: &str) -> Option<Version> {
    let (_, image) = name.rsplit_once("lmcache/")?;
    image.split_once(':')?.1.parse().ok()
}

/// The folder of the real `vllm` program, behind links.
fn program_folder(bin_dir: &Path) -> Option<PathBuf> {
    if !bin_dir.as_os_str().is_empty() {
        return Some(bin_dir.to_owned());
    }
    Some(
        fs::canonicalize(in_path("vllm")?)
            .ok()?
            .parent()?
            .to_owned(),
    )
}

/// Where a model's files are, and which revision they are.
struct Model {
    folder: PathBuf,
    revision: Option<String>,
}

/// The folder with the files of `cell`'s model, where they are on this machine.
pub(crate) fn model_path(cell: &Cell, settings: &Settings) -> Option<PathBuf> {
    model_folder(cell, settings).map(|model| model.folder)
}

/// The folder that the plan names, the local folder that the settings name, or the snapshot in Hugging Face's cache
/// (`models--ORG--NAME/refs/REVISION` holds the commit of `snapshots/COMMIT`).
fn model_folder(cell: &Cell, settings: &Settings) -> Option<Model> {
    let models = &settings.paths.models;
    let model = &cell.resolved.model;
    let named = Path::new(model);
    let local = match &cell.resolved.server.docker {
        Some(docker) if named.is_absolute() => on_host(&docker.mounts, named)?,
        _ => models.join(model),
    };
    if (named.is_absolute() || !models.as_os_str().is_empty()) && local.is_dir() {
        let revision = hash_of_folder(&local);
        return Some(Model {
            folder: local,
            revision,
        });
    }
    let asked = cell.resolved.server.args.get("revision");
    let reference = asked.and_then(|asked| asked.as_str()).unwrap_or("main");
    let cached =
        hugging_face_cache(cell, settings)?.join(format!("models--{}", model.replace('/', "--")));
    let commit = fs::read_to_string(cached.join("refs").join(reference))
        .map_or_else(|_| reference.to_owned(), |text| text.trim().to_owned());
    let folder = cached.join("snapshots").join(&commit);
    folder.is_dir().then_some(Model {
        folder,
        revision: Some(commit),
    })
}

/// Hugging Face's cache as the server will see it, as a folder of this machine. A container sees
/// the folders that the plan mounts, and else the cache that labrun mounts.
fn hugging_face_cache(cell: &Cell, settings: &Settings) -> Option<PathBuf> {
    let server = &cell.resolved.server;
    let named = |name: &str| {
        let named = server.env.get(name).or_else(|| settings.env.get(name));
        named.map(PathBuf::from)
    };
    let inherited = |name: &str| std::env::var_os(name).map(PathBuf::from);
    if let Some(docker) = &server.docker {
        let hub = named("HF_HUB_CACHE").or_else(|| named("HF_HOME").map(|home| home.join("hub")));
        if let Some(hub) = hub {
            return on_host(&docker.mounts, &hub);
        }
        let own = &settings.docker.hf_cache;
        if !own.as_os_str().is_empty() {
            return Some(own.join("hub"));
        }
    }
    let value = |name: &str| named(name).or_else(|| inherited(name));
    value("HF_HUB_CACHE")
        .or_else(|| value("HF_HOME").map(|home| home.join("hub")))
        .or_else(|| value("XDG_CACHE_HOME").map(|cache| cache.join("huggingface/hub")))
        .or_else(|| value("HOME").map(|home| home.join(".cache/huggingface/hub")))
}

/// The folder of this machine that a container sees as `path`.
fn on_host(mounts: &[Mount], path: &Path) -> Option<PathBuf> {
    let inside = |mount: &Mount| {
        let rest = path.strip_prefix(&mount.target).ok()?;
        Some((mount.target.len(), Path::new(&mount.source).join(rest)))
    };
    let folders = mounts.iter().filter_map(inside);
    folders
        .max_by_key(|(length, _)| *length)
        .map(|(_, path)| path)
}

/// A hash over the names, sizes and, where they are small, bytes of a folder's files.
fn hash_of_folder(folder: &Path) -> Option<String> {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_file())
        .collect();
    entries.sort();
    let mut hasher = blake3::Hasher::new();
    for path in entries {
        let size = fs::metadata(&path).ok()?.len();
        hasher.update(path.file_name()?.as_encoded_bytes());
        hasher.update(&size.to_le_bytes());
        if size <= READ_UP_TO_BYTES {
            hasher.update(&fs::read(&path).ok()?);
        }
    }
    Some(format!("files-{}", &hasher.finalize().to_hex()[..16]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_the_metadata_beside_the_programs() {
        let dir = tempfile::tempdir().unwrap();
        let packages_dir = dir.path().join("lib/python3.12/site-packages");
        for name in ["vllm-0.24.0", "torch-2.11.0+cu129", "torch_c-1.0", "x-1"] {
            fs::create_dir_all(packages_dir.join(format!("{name}.dist-info"))).unwrap();
        }
        let bin = dir.path().join("bin");
        fs::create_dir_all(&bin).unwrap();
        let found = packages(&bin);
        let expected = [("torch", "2.11.0+cu129"), ("vllm", "0.24.0")];
        assert_eq!(found, expected.map(|(k, v)| (k, v.to_owned())).into());
    }

    #[test]
    fn the_image_that_ran_is_the_one_of_the_servers_own_container() {
        let container = |role: &str, digest: Option<&str>| ContainerRecord {
            role: role.to_owned(),
            image_id: format!("sha256:{role}"),
            digest: digest.map(str::to_owned),
            ..ContainerRecord::default()
        };
        let redis = container("redis", Some("r@sha256:1"));
        assert!(of_containers(std::slice::from_ref(&redis)).is_empty());
        let own = of_containers(&[redis.clone(), container("sim", None)]);
        assert_eq!(own, [(IMAGE.into(), "sha256:sim".into())].into());
        let pulled = of_containers(&[redis, container("vllm", Some("127.0.0.1:1/v@sha256:2"))]);
        let digest = (DIGEST.to_owned(), "sha256:2".to_owned());
        assert_eq!(
            pulled,
            [digest, (IMAGE.to_owned(), "sha256:vllm".to_owned())].into()
        );
    }

    #[test]
    fn the_tag_of_lmcaches_own_images_is_its_version() {
        let version = |name| version_of_image(name).map(|version| version.to_string());
        let known = Some("0.4.7".to_owned());
        assert_eq!(version("lmcache/vllm-openai:v0.4.7"), known);
        assert_eq!(version("docker.io/lmcache/standalone:v0.4.7-cu129"), known);
        for name in [
            "lmcache/vllm-openai:latest",
            "vllm/vllm-openai:v0.4.7",
            "own",
        ] {
            assert_eq!(version(name), None, "{name}");
        }
    }

    #[test]
    fn a_containers_path_is_found_on_this_machine() {
        let mount = |source: &str, target: &str| Mount {
            source: source.into(),
            target: target.into(),
            read_only: false,
        };
        let mounts = [
            mount("/data", "/root"),
            mount("/cache/hf", "/root/.cache/huggingface"),
        ];
        let host = |path: &str| on_host(&mounts, Path::new(path));
        let hub = host("/root/.cache/huggingface/hub");
        assert_eq!(hub, Some(PathBuf::from("/cache/hf/hub")));
        assert_eq!(
            host("/root/models/m"),
            Some(PathBuf::from("/data/models/m"))
        );
        assert_eq!(host("/rootless/m"), None, "another folder");
    }

    #[test]
    fn another_configuration_is_another_revision() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("config.json"), "{}").unwrap();
        let first = hash_of_folder(dir.path()).unwrap();
        assert_eq!(hash_of_folder(dir.path()), Some(first.clone()));
        fs::write(dir.path().join("config.json"), "{ }").unwrap();
        assert_ne!(hash_of_folder(dir.path()), Some(first));
    }
}
