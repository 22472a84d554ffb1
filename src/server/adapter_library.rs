//! Libraries that an adapter of LMCache's server needs and that LMCache's wheel does not bring.

use std::path::PathBuf;

use super::facts;
use crate::config::Settings;
use crate::matrix::Cell;
use crate::plan::adapter::{MOONCAKE_STORE, NIXL_STORE, RAW_BLOCK};
use crate::plan::server::{Launcher, LmcacheMode};

/// How to get the library of `nixl_store`.
pub(super) const NIXL_FIX: &str =
    "the adapter `nixl_store` needs NIXL: `pip install nixl` beside LMCache";
/// How to get the library of `raw_block`.
pub(super) const RAW_BLOCK_FIX: &str = "the adapter `raw_block` needs its library: `pip install \
                                        lmcache-rust-raw-block-io` beside LMCache";
/// How to get the library of `mooncake_store`.
pub(super) const MOONCAKE_FIX: &str = "the adapter `mooncake_store` needs `lmcache_mooncake`, which no wheel of \
                                       LMCache has: build LMCache from source with MOONCAKE_INCLUDE_DIR set to \
                                       Mooncake's `mooncake-store/include`";

/// What lies in a folder of Python packages where the library of an adapter of the type `own` is
/// installed, and how to get it; `None` where LMCache brings all.
fn library(own: &str) -> Option<(&'static str, &'static str)> {
    match own {
        NIXL_STORE => Some(("nixl/__init__.py", NIXL_FIX)),
        RAW_BLOCK => Some(("lmcache_rust_raw_block_io*", RAW_BLOCK_FIX)),
        MOONCAKE_STORE => Some(("lmcache/lmcache_mooncake*", MOONCAKE_FIX)),
        _ => None,
    }
}

/// What the adapter of `cell` needs and is not beside LMCache on this machine, and how to get it; `None`
/// where it is there, or cannot be seen before the start.
pub(crate) fn missing(cell: &Cell, settings: &Settings) -> Option<String> {
    let server = &cell.resolved.server;
    let starts_here = server.launcher == Launcher::Process;
    if !starts_here || server.lmcache != LmcacheMode::MultiProcess {
        return None;
    }
    let (file, fix) = library(cell.tier.adapter.type_name(cell.tier.kind)?)?;
    let path = server.env.get("PYTHONPATH");
    let named: Vec<_> = std::env::split_paths(path.map_or("", String::as_str)).collect();
    let packages = facts::package_folders(&settings.process.bin_dir);
    is_missing(file, &packages, &named).then(|| format!("tier `{}`: {fix}", cell.tier.name))
}

/// Whether `file` lies in none of the folders of packages, nor in those that are `named` besides. Where
/// LMCache is in none of them, nothing is known.
fn is_missing(file: &str, packages: &[PathBuf], named: &[PathBuf]) -> bool {
    let has = |folder: &PathBuf, file: &str| {
        let pattern = folder.join(file);
        let found = glob::glob(&pattern.to_string_lossy()).into_iter().flatten();
        found.flatten().next().is_some()
    };
    let is_seen = packages.iter().any(|folder| has(folder, "lmcache"));
    is_seen && !packages.iter().chain(named).any(|folder| has(folder, file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_missing_where_lmcache_is_and_it_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (site, more) = (dir.path().join("site"), dir.path().join("more"));
        let (file, fix) = library(RAW_BLOCK).unwrap();
        assert!(fix.contains("pip install lmcache-rust-raw-block-io"));
        let missing = |named: &[&PathBuf]| {
            let named: Vec<_> = named.iter().map(|path| (*path).clone()).collect();
            is_missing(file, std::slice::from_ref(&site), &named)
        };
        assert!(!missing(&[]), "no LMCache is there to look beside");
        std::fs::create_dir_all(site.join("lmcache")).unwrap();
        assert!(missing(&[]));
        std::fs::create_dir_all(more.join("lmcache_rust_raw_block_io")).unwrap();
        assert!(!missing(&[&more]));
        std::fs::create_dir_all(site.join("lmcache_rust_raw_block_io-0.5.7.dist-info")).unwrap();
        assert!(!missing(&[]));
    }

    #[test]
    fn adapters_of_the_wheel_need_nothing_more() {
        for own in ["fs", "fs_native", "resp", "s3"] {
            assert_eq!(library(own), None, "{own}");
        }
    }
}
