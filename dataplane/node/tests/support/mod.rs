//! Runs the binary: to its end, or until it is told to stop.

#![allow(dead_code, reason = "each test file uses its part")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(60);

/// A folder of the test's own, removed at the end.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("towpath-cli-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        fs::write(self.0.join(name), text).unwrap();
        self.path(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a finished command left.
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A running node.
pub(crate) struct Towpath {
    child: Child,
    pub(crate) ready: String,
    socket: String,
    lines: Receiver<String>,
    stdout: Option<std::thread::JoinHandle<String>>,
    finish: Option<Sender<()>>,
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_towpath"));
    command
        .args(args)
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

impl Towpath {
    /// Runs a command that ends by itself.
    pub(crate) fn run(args: &[&str]) -> Done {
        let output = command(args).output().unwrap();
        Done {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Starts `towpath run` on ports of the kernel's choice and waits for its ready line.
    pub(crate) fn start(folder: &Folder, app: &str, more: &[&str]) -> Self {
        Self::start_with(folder, app, more, true)
    }

    /// The same; with `reads` false, nobody reads its standard output.
    pub(crate) fn start_with(folder: &Folder, app: &str, more: &[&str], reads: bool) -> Self {
        let socket = folder.path("admin.sock");
        let unix = format!("unix:{socket}");
        let mut args =
            vec!["run", app, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--admin", &unix];
        args.extend(more);
        let mut child = command(&args).spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let mut out = child.stdout.take().unwrap();
        let (finish, wait) = channel::<()>();
        let stdout = std::thread::spawn(move || {
            let mut text = String::new();
            if !reads {
                let _ = wait.recv();
            }
            let _ = out.read_to_string(&mut text);
            text
        });
        let (say, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let _ = say.send(line);
            }
        });
        let mut said = Vec::new();
        let ready = loop {
            match lines.recv_timeout(TIMEOUT) {
                Ok(line) if line.starts_with("towpath ready: ") => break line,
                Ok(line) => said.push(line),
                Err(_) => panic!("no ready line: {said:?}"),
            }
        };
        Self { child, ready, socket, lines, stdout: Some(stdout), finish: Some(finish) }
    }

    fn after(&self, word: &str) -> SocketAddr {
        let (_, rest) = self.ready.split_once(word).unwrap();
        rest.split([',', ' ']).next().unwrap().parse().unwrap()
    }

    pub(crate) fn listening(&self) -> SocketAddr {
        self.after(", listening ")
    }

    pub(crate) fn admin(&self) -> SocketAddr {
        self.after(", admin ")
    }

    pub(crate) fn socket(&self) -> String {
        self.socket.clone()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.pid().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// The next line on standard error.
    pub(crate) fn says(&self) -> String {
        self.lines.recv_timeout(TIMEOUT).unwrap()
    }

    /// Waits for the end: exit code and what it wrote to standard output.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        for _ in 0..600 {
            if let Some(status) = self.child.try_wait().unwrap() {
                drop(self.finish.take());
                return (status.code(), self.stdout.take().unwrap().join().unwrap());
            }
            #[expect(clippy::disallowed_methods, reason = "a test waits for a process")]
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("the node did not end");
    }

    /// SIGTERM, and the exit code.
    pub(crate) fn stop(self) -> Option<i32> {
        self.signal("TERM");
        self.end().0
    }
}

impl Drop for Towpath {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The body of a GET, or the whole answer if it is not 200.
pub(crate) fn http_get(addr: SocketAddr, path: &str) -> Result<String, String> {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: towpath\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    match text.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok(body.to_owned()),
        _ => Err(text),
    }
}
