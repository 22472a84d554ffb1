//! A program with its arguments and the environment that labrun gives it: to be started, and to be
//! shown as a person would type it.

use std::ffi::OsString;

use tokio::process::Command;

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
    /// Adds the environment and the arguments to `command`, which is of the first word.
    pub(super) fn fill(&self, command: &mut Command) {
        command
            .args(self.words.iter().skip(1))
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
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

/// A script of `commands`: all but the last run beside it and end with it.
pub(super) fn script(about: &str, commands: &[String]) -> String {
    let mut text = format!(
        "#!/bin/sh\n# {about}\n# Secrets are taken from the environment.\n\
         cd \"$(dirname \"$0\")\" || exit 1\n"
    );
    if commands.len() > 1 {
        text.push_str("trap 'kill $(jobs -p) 2>/dev/null' EXIT\n");
    }
    for (index, command) in commands.iter().enumerate() {
        let end = if index + 1 < commands.len() { " &" } else { "" };
        text.push_str(&format!("\n{command}{end}\n"));
    }
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
