//! Which variables of labrun's environment a started process inherits: those it needs, and no credential
//! of others.

use std::ffi::OsStr;

use tokio::process::Command;

use crate::config::Settings;
use crate::secret;

/// The token with which vLLM fetches gated models, by both names that it reads.
const HUB_TOKENS: [&str; 2] = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"];

/// Prefixes of credentials, accounts and agents of other services. Names that mark a secret are
/// recognized without this list.
const OF_OTHERS: [&str; 22] = [
    "ANTHROPIC_",
    "AWS_",
    "AZURE_",
    "BITBUCKET_",
    "BUILDKITE_",
    "CI_",
    "CIRCLE_",
    "CLOUDFLARE_",
    "CLOUDSDK_",
    "DIGITALOCEAN_",
    "DOCKER_",
    "GCLOUD_",
    "GCP_",
    "GITHUB_",
    "GITLAB_",
    "GOOGLE_",
    "GPG_AGENT_",
    "KUBE",
    "OPENAI_",
    "SLACK_",
    "SSH_",
    "VAULT_",
];

/// Variables of proxies, in any case.
const PROXIES: [&str; 5] = [
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "ftp_proxy",
    "no_proxy",
];

/// What labrun's own programs and Redis need.
const BASICS: [&str; 14] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TMPDIR",
    "TERM",
    "LD_LIBRARY_PATH",
    "RUST_BACKTRACE",
    "RUST_LOG",
    "LLVM_PROFILE_FILE",
];

/// Gives a program of the serving stack what it inherits: everything but credentials (by the name or
/// the form of the value, the hub's token excepted), accounts of other services, proxies, LMCache's
/// keys, which would silently override the rendered file, and labrun's own settings. What
/// `process.inherit` names comes along all the same.
pub(super) fn for_server(command: &mut Command, settings: &Settings) {
    for (name, value) in std::env::vars_os() {
        if !reaches_server(&name.to_string_lossy(), &value, &settings.process.inherit) {
            command.env_remove(&name);
        }
    }
}

/// Gives labrun's own simulator, or a Redis, what it needs.
pub(super) fn for_helper(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if !BASICS.contains(&&*text) && !text.starts_with("LC_") {
            command.env_remove(&name);
        }
    }
}

fn reaches_server(name: &str, value: &OsStr, inherit: &[String]) -> bool {
    let is_named = inherit.iter().any(|wanted| match wanted.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == wanted,
    });
    let begins_with = |starts: &[&str]| starts.iter().any(|start| name.starts_with(start));
    if begins_with(&["LMCACHE_", "LABRUN_"]) {
        return false;
    }
    is_named
        || HUB_TOKENS.contains(&name)
        || !(begins_with(&OF_OTHERS)
            || PROXIES.contains(&name.to_lowercase().as_str())
            || secret::name::is_secret(name)
            || secret::form::is_secret(&value.to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_gets_what_it_needs_and_no_credential_of_others() {
        let reaches = |name: &str, value: &str| reaches_server(name, OsStr::new(value), &[]);
        for needed in [
            "HF_TOKEN",
            "HF_HOME",
            "HF_ENDPOINT",
            "PATH",
            "HOME",
            "CUDA_VISIBLE_DEVICES",
            "CUDA_HOME",
            "LD_LIBRARY_PATH",
            "NCCL_DEBUG",
            "VLLM_USE_V1",
            "TORCH_CUDA_ARCH_LIST",
            "XDG_CACHE_HOME",
            "TMPDIR",
            "LANG",
            "OMP_NUM_THREADS",
            "NVIDIA_VISIBLE_DEVICES",
            "UCX_TLS",
            "PYTHONPATH",
            "VIRTUAL_ENV",
            "SSL_CERT_FILE",
            "TOKENIZERS_PARALLELISM",
            "SLURM_JOB_ID",
        ] {
            assert!(reaches(needed, "x"), "{needed}");
        }
        for foreign in [
            "OPENAI_API_KEY",
            "OPENAI_BASE_URL",
            "AWS_REGION",
            "AWS_SECRET_ACCESS_KEY",
            "HTTPS_PROXY",
            "http_proxy",
            "GITHUB_TOKEN",
            "DB_PASS",
            "KUBECONFIG",
            "SSH_AUTH_SOCK",
            "DOCKER_HOST",
            "LMCACHE_CHUNK_SIZE",
            "LABRUN_REDIS__URL",
            "GOOGLE_APPLICATION_CREDENTIALS",
        ] {
            assert!(!reaches(foreign, "x"), "{foreign}");
        }
        assert!(!reaches("BROKER", "amqp://u:p@h"));
        assert!(!reaches(
            "HEADER",
            "ghp_abcdefghijklmnopqrstuvwxyz0123456789"
        ));
    }

    #[test]
    fn the_settings_name_what_comes_along() {
        let inherit = [
            "AWS_*".to_owned(),
            "HTTPS_PROXY".to_owned(),
            "LMCACHE_X".to_owned(),
        ];
        let reaches = |name: &str| reaches_server(name, OsStr::new("x"), &inherit);
        assert!(reaches("AWS_SECRET_ACCESS_KEY") && reaches("HTTPS_PROXY"));
        assert!(!reaches("HTTP_PROXY") && !reaches("LMCACHE_X"));
    }
}
