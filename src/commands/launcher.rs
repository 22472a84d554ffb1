//! How servers are started where a plan does not say: by what it names, or by what this machine has.

use std::path::PathBuf;

use tokio::runtime::Builder;

use crate::config::Settings;
use crate::nvml;
use crate::plan::server::Launcher;
use crate::plan::text::PlanText;
use crate::server;
use crate::server::docker::daemon::Daemon;

/// The image where a plan names none, and Docker is chosen.
pub(super) const IMAGE: &str = "lmcache/vllm-openai:latest";

/// What starts servers on this machine.
#[derive(Debug, Default)]
pub(super) struct Machine {
    /// Whether a Docker of this machine answers.
    pub docker: bool,
    /// Whether there is an NVIDIA GPU.
    pub gpu: bool,
    /// `vllm` in PATH or `process.bin_dir`.
    pub vllm: Option<PathBuf>,
}

impl Machine {
    /// Looks.
    pub(super) fn look(settings: &Settings) -> Self {
        let gpu = nvml::gpu_count() > 0;
        Self {
            docker: docker_answers(),
            gpu,
            vllm: server::vllm_program(settings),
        }
    }

    /// The launcher that fits, and why.
    ///
    /// # Errors
    /// What was looked for and is not there.
    pub(super) fn launcher(&self) -> Result<(Launcher, String), String> {
        match (&self.vllm, self.docker && self.gpu) {
            (_, true) => Ok((
                Launcher::Docker,
                "Docker answers, and there is an NVIDIA GPU".to_owned(),
            )),
            (Some(vllm), false) => {
                Ok((Launcher::Process, format!("`vllm` is `{}`", vllm.display())))
            }
            (None, false) => {
                let docker = match (self.docker, self.gpu) {
                    (true, _) => "there is no NVIDIA GPU for Docker",
                    (false, true) => "no Docker answers",
                    (false, false) => "there is neither Docker nor an NVIDIA GPU",
                };
                Err(format!(
                    "{docker}, and no `vllm` in PATH or `process.bin_dir`"
                ))
            }
        }
    }
}

fn docker_answers() -> bool {
    let Ok(runtime) = Builder::new_current_thread().enable_all().build() else {
        return false;
    };
    let daemon = runtime.block_on(Daemon::connect());
    daemon.is_ok_and(|daemon| daemon.is_local())
}

/// Names a launcher in a plan that names none. Returns what was chosen, for people.
///
/// # Errors
/// Why none could be chosen.
pub(super) fn complete(
    plan: &mut PlanText,
    machine: impl FnOnce() -> Machine,
) -> Result<Option<String>, String> {
    if plan.has(&["server", "launcher"]) {
        return Ok(None);
    }
    let named = [
        ("url", Launcher::External),
        ("image", Launcher::Docker),
        ("sim", Launcher::Sim),
    ];
    let named = named
        .into_iter()
        .find(|(key, _)| plan.has(&["server", key]));
    let (launcher, why) = match named {
        Some((key, launcher)) => (launcher, format!("[server] has `{key}`")),
        None => machine().launcher()?,
    };
    let name = launcher.name();
    plan.add(
        &["server", "launcher"],
        name,
        &format!("chosen: {}", plain(&why)),
    );
    let mut note = format!("launcher `{name}`: {why} (`launcher` in [server] chooses another)");
    if launcher == Launcher::Docker && !plan.has(&["server", "image"]) {
        plan.add(&["server", "image"], IMAGE, "the default");
        plan.add(
            &["server", "ipc"],
            "host",
            "for the shared memory of PyTorch",
        );
        note.push_str(&format!("; image `{IMAGE}`"));
    }
    Ok(Some(note))
}

/// A reason without what cannot stand in a comment.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(docker: bool, gpu: bool, vllm: bool) -> Machine {
        Machine {
            docker,
            gpu,
            vllm: vllm.then(|| PathBuf::from("/opt/bin/vllm")),
        }
    }

    #[test]
    fn a_launcher_is_chosen_by_what_the_machine_has() {
        for (docker, gpu, vllm, expected) in [
            (true, true, true, Ok("docker")),
            (true, true, false, Ok("docker")),
            (true, false, true, Ok("process")),
            (false, true, true, Ok("process")),
            (false, false, true, Ok("process")),
            (true, false, false, Err("no NVIDIA GPU for Docker")),
            (false, true, false, Err("no Docker answers")),
            (false, false, false, Err("neither Docker nor an NVIDIA GPU")),
        ] {
            let chosen = machine(docker, gpu, vllm).launcher();
            match (chosen, expected) {
                (Ok((launcher, _)), Ok(name)) => assert_eq!(launcher.name(), name),
                (Err(why), Err(part)) => assert!(why.contains(part), "{why}"),
                other => panic!("{docker} {gpu} {vllm}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_the_plan_names_decides_before_the_machine() {
        let complete = |text: &str| {
            let mut text = PlanText::new(text).unwrap();
            let note = complete(&mut text, || machine(true, true, true)).unwrap();
            (note.unwrap_or_default(), text.text(&[]))
        };
        for (plan, launcher) in [
            ("[server]\nurl = \"http://h:1\"\n", "external"),
            (
                "[server]\nimage = \"a\"\n[server.sim]\nstart_ms = 1\n",
                "docker",
            ),
            ("[server.sim]\nstart_ms = 1\n", "sim"),
            ("model = \"m\"\n", "docker"),
        ] {
            let (note, text) = complete(plan);
            assert!(
                note.starts_with(&format!("launcher `{launcher}`: ")),
                "{note}"
            );
            assert!(
                text.contains(&format!("launcher = \"{launcher}\" # chosen: ")),
                "{text}"
            );
        }
        let (note, text) = complete("model = \"m\"\n");
        assert!(note.ends_with(&format!("image `{IMAGE}`")), "{note}");
        assert!(text.contains(&format!("image = \"{IMAGE}\"")), "{text}");
        let named = "[server]\nlauncher = \"sim\"\n";
        assert_eq!(complete(named), (String::new(), named.to_owned()));
    }
}
