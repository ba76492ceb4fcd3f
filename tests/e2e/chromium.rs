//! A real browser without a window: pictures of pages as people see them, and the document that it makes of a file. Without the program a
//! test says that it was skipped; where CI is set to true it fails instead, so that it cannot go missing unseen.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::harness::tell;

/// The names under which distributions install it.
const PROGRAMS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
/// How long a picture may take: on a busy machine with two cores two seconds, where a dozen builds run beside it much more.
const RUN_MAX: Duration = Duration::from_secs(120);
/// What a page may be painted as, in pixels: more than any report has, and a bound for the memory of its picture.
const PIXELS_MAX: usize = 60_000_000;

/// The program, with an empty profile.
pub(crate) struct Chromium {
    program: &'static str,
    dir: TempDir,
}

/// Which colours the page is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Light,
    Dark,
}

/// A picture of a page.
pub(crate) struct Picture {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pixels: Vec<[u8; 3]>,
}

/// The processes of one run: a browser starts many, and none may stay when a test ends.
struct Family {
    child: Child,
    group: libc::pid_t,
}

impl Drop for Family {
    fn drop(&mut self) {
        // SAFETY: kill takes two numbers and touches no memory. The group began with a child that is waited for at the earliest when this ends, so its
        // number is not another group's.
        #[allow(unsafe_code)]
        let _gone = unsafe { libc::kill(-self.group, libc::SIGKILL) };
    }
}

impl Chromium {
    /// The browser; none if the program is not there.
    pub(crate) fn find() -> Option<Self> {
        let there = |name: &&str| {
            let asked = std::process::Command::new(name).arg("--version").stderr(Stdio::null()).output();
            asked.is_ok_and(|answer| answer.status.success())
        };
        let Some(program) = PROGRAMS.into_iter().find(there) else {
            assert!(
                !std::env::var("CI").is_ok_and(|ci| ci == "true"),
                "no Chromium can be started; install Debian's chromium"
            );
            tell!("SKIPPED: no Chromium can be started; install chromium to run this test");
            return None;
        };
        Some(Self { program, dir: tempfile::tempdir().unwrap() })
    }

    /// The page in this file in a window of this size, as wide and as high as it.
    pub(crate) async fn picture(&self, page: &Path, (width, height): (usize, usize), scheme: Scheme) -> Picture {
        let file = self.dir.path().join("picture.png");
        let _none_yet = std::fs::remove_file(&file);
        let size = format!("--window-size={width},{height}");
        let target = format!("--screenshot={}", file.display());
        // Blink's numbers for the preferred scheme.
        let scheme = match scheme {
            Scheme::Dark => "--blink-settings=preferredColorScheme=0",
            Scheme::Light => "--blink-settings=preferredColorScheme=1",
        };
        let output = self.run(&[&size, &target, scheme], page).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let bytes = std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}: {said}", file.display()));
        let picture = Picture::read(&bytes);
        assert_eq!((picture.width, picture.height), (width, height), "a picture of the size asked for: {said}");
        picture
    }

    /// The document that the browser makes of the page in this file, as text.
    pub(crate) async fn document(&self, page: &Path, width: usize) -> String {
        let size = format!("--window-size={width},1000");
        let output = self.run(&["--dump-dom", &size], page).await;
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs it to its end, within [`RUN_MAX`]. Whatever becomes of it, its processes end.
    async fn run(&self, flags: &[&str], page: &Path) -> Output {
        let profile = tempfile::tempdir_in(self.dir.path()).unwrap();
        let mut command = Command::new(self.program);
        command
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic"])
            .args(["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--hide-scrollbars", "--force-device-scale-factor=1", "--force-color-profile=srgb"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .args(flags)
            .arg(format!("file://{}", page.display()))
            .env("HOME", profile.path())
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("XDG_CACHE_HOME")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let child = command.spawn().unwrap();
        let group = libc::pid_t::try_from(child.id().unwrap()).unwrap();
        let mut family = Family { child, group };
        let mut out = family.child.stdout.take().unwrap();
        let mut err = family.child.stderr.take().unwrap();
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        // Children that live on hold the ends of its output: its own end is what counts.
        let ended = timeout(RUN_MAX, async {
            let (_, _, status) =
                tokio::join!(out.read_to_end(&mut stdout), err.read_to_end(&mut stderr), family.child.wait());
            status.unwrap()
        });
        let ended = ended.await;
        drop(family);
        let said = String::from_utf8_lossy(&stderr).into_owned();
        let status = ended.unwrap_or_else(|_| panic!("Chromium was not done after {RUN_MAX:?}: {said}"));
        assert!(status.success(), "{status}: {said}");
        Output { status, stdout, stderr }
    }
}

/// A file that a page can be written to, in a folder that goes with the browser.
impl Chromium {
    pub(crate) fn page(&self, name: &str, html: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, html).unwrap();
        path
    }
}

impl Picture {
    fn read(bytes: &[u8]) -> Self {
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
        let (width, height) = (reader.info().width as usize, reader.info().height as usize);
        assert!(width * height <= PIXELS_MAX, "{width} x {height}");
        let mut buffer = vec![0; reader.output_buffer_size().unwrap()];
        let frame = reader.next_frame(&mut buffer).unwrap();
        assert_eq!(frame.bit_depth, png::BitDepth::Eight);
        let samples = match frame.color_type {
            png::ColorType::Rgb => 3,
            png::ColorType::Rgba => 4,
            other => panic!("a picture in {other:?}"),
        };
        let pixels = buffer[..frame.buffer_size()].chunks_exact(samples).map(|pixel| [pixel[0], pixel[1], pixel[2]]);
        Self { width, height, pixels: pixels.collect() }
    }

    pub(crate) fn at(&self, x: usize, y: usize) -> [u8; 3] {
        self.pixels[y * self.width + x]
    }

    /// How many pixels have this colour.
    pub(crate) fn count(&self, colour: [u8; 3]) -> usize {
        self.pixels.iter().filter(|pixel| **pixel == colour).count()
    }

    /// Whether a pixel within one of this place has about this colour: edges of lines are mixed with what lies behind.
    pub(crate) fn has_near(&self, (x, y): (f64, f64), colour: [u8; 3]) -> bool {
        let (x, y) = (x.round() as i64, y.round() as i64);
        let near = (-1..=1).flat_map(|down| (-1..=1).map(move |right| (x + right, y + down)));
        let inside = near.filter(|(x, y)| (0..self.width as i64).contains(x) && (0..self.height as i64).contains(y));
        let mut pixels = inside.map(|(x, y)| self.at(x as usize, y as usize));
        pixels.any(|pixel| pixel.iter().zip(colour).all(|(found, wanted)| found.abs_diff(wanted) <= 12))
    }
}
