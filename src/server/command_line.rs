//! A program with its arguments and the environment that labrun gives it: to be started, and to be
//! shown as a person would type it.

use std::ffi::OsString;
use std::process::Stdio;

use tokio::process::Command;

use super::environment;
use crate::config::Settings;
use crate::secret;

/// Name of the script in a cell's folder that starts its server by hand.
pub(crate) const SERVER_SCRIPT: &str = "server.sh";

/// One program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CommandLine {
    /// The program and its arguments.
    pub words: Vec<OsString>,
    /// What labrun adds to the environment. Later entries win.
    pub environment: Vec<(String, OsString)>,
}

impl CommandLine {
    /// The program as one of the serving stack, with what that may have of labrun's environment.
    pub(super) fn command(&self, settings: &Settings) -> Command {
        let mut words = self.words.iter();
        let mut command = Command::new(words.next().cloned().unwrap_or_default());
        environment::for_server(&mut command, settings);
        command
            .args(words)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    /// Sets a variable.
    pub(super) fn set(&mut self, name: &str, value: impl Into<OsString>) {
        self.environment.push((name.to_owned(), value.into()));
    }

    /// The command for a shell, a flag a line; secrets as `"$NAME"`.
    pub(super) fn shell(&self) -> String {
        let mut text = String::new();
        if !self.environment.is_empty() {
            text.push_str("env");
        }
        let mut shown: Vec<&str> = Vec::new();
        for (name, value) in self.environment.iter().rev() {
            if shown.contains(&name.as_str()) {
                continue;
            }
            shown.push(name);
            let value = value.to_string_lossy();
            let value = if secret::name::is_secret(name) || secret::is_in(&value) {
                format!("\"${name}\"")
            } else if value == TEMPORARY {
                TEMPORARY.to_owned()
            } else {
                quoted(&value)
            };
            text.push_str(&format!(" \\\n  {name}={value}"));
        }
        if !text.is_empty() {
            text.push_str(" \\\n  ");
        }
        for (index, word) in self.words.iter().enumerate() {
            let word = word.to_string_lossy();
            if index > 0 && word.starts_with("--") {
                text.push_str(" \\\n   ");
            }
            if index > 0 {
                text.push(' ');
            }
            text.push_str(&quoted(&word));
        }
        text
    }
}

/// Stands in a shown command for a new folder, which the shell makes.
pub(super) const TEMPORARY: &str = "\"$(mktemp -d)\"";

/// `text` as one word of a shell.
pub(super) fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_./:=@%+,-".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// A script of `last`, and of what is started `before` it, runs beside it and ends with it.
pub(super) fn script(about: &str, before: &[String], last: &str) -> String {
    let mut text = format!(
        "#!/bin/sh\n# {about}\n# Secrets are taken from the environment.\n\
         cd \"$(dirname \"$0\")\" || exit 1\n"
    );
    if !before.is_empty() {
        text.push_str("trap 'kill $(jobs -p) 2>/dev/null' EXIT\n");
    }
    for lines in before {
        text.push_str(&format!("\n{lines}\n"));
    }
    text.push_str(&format!("\n{last}\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_back_what_was_given_and_no_secret_is_shown() {
        let mut line = CommandLine {
            words: ["printf", "%s|", "a b", "it's", "--config", "{\"a\":1}"]
                .map(OsString::from)
                .into(),
            ..CommandLine::default()
        };
        line.set("PLAIN", "1");
        line.set("PLAIN", "2 3");
        line.set("HF_TOKEN", "hf_abcdef");
        let shell = line.shell();
        assert!(shell.contains("HF_TOKEN=\"$HF_TOKEN\""), "{shell}");
        assert!(
            shell.contains("PLAIN='2 3'") && !shell.contains("PLAIN=1"),
            "{shell}"
        );
        let output = std::process::Command::new("sh")
            .args(["-c", &shell])
            .output()
            .unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "a b|it's|--config|{\"a\":1}|"
        );
    }
}
