//! A virtual machine whose clock a test may set: qemu without acceleration, a kernel, and an initramfs that holds busybox, the
//! daemon and this very test program. It boots in five seconds.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{BINARY, Killed, has};

/// Names the kernel image to boot, such as that of Debian's linux-image-cloud-amd64.
const KERNEL: &str = "CORPTOKEND_VM_KERNEL";
/// Set inside, and nowhere else.
const INSIDE: &str = "CORPTOKEND_INSIDE_VM";
/// In front of what the test inside has to say.
const FIGURES: &str = "figures of the guest: ";
/// An emulated machine is slow, and may be one of many.
const LONGEST: Duration = Duration::from_secs(300);

/// Runs `scene` in a virtual machine, as the test of this name, and returns the figures that it came to. `None` inside,
/// where the test ends with its scene, and where there is no virtual machine to be had.
pub(crate) fn within(test: &str, scene: impl FnOnce() -> String) -> Option<String> {
    if std::env::var_os(INSIDE).is_some() {
        println!("\n{FIGURES}{}", scene());
        return None;
    }
    let Some(kernel) = std::env::var_os(KERNEL) else {
        eprintln!("SKIPPED: {KERNEL} names no kernel to boot (docs/reliability.md)");
        return None;
    };
    for program in ["qemu-system-x86_64", "busybox", "cpio", "keyctl", "strip"] {
        assert!(
            has(program),
            "{program} is not installed; Debian: qemu-system-x86 busybox-static cpio keyutils binutils"
        );
    }
    let console = boot(&kernel, test);
    let figures =
        console.lines().find_map(|line| line.split_once(FIGURES)).map(|(_, figures)| figures.trim().to_owned());
    Some(figures.unwrap_or_else(|| panic!("the test fails in the virtual machine:\n{console}")))
}

/// What appears on the console until the machine is switched off.
fn boot(kernel: &OsStr, test: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let initramfs = initramfs(dir.path(), test);
    let console = dir.path().join("console");
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-accel", "tcg", "-cpu", "max", "-m", "1024", "-no-reboot", "-nodefaults", "-display", "none"]);
    command.arg("-serial").arg(format!("file:{}", console.display()));
    command.arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs);
    command.args(["-append", "console=ttyS0 quiet panic=-1"]);
    let mut machine = Killed(command.stdin(Stdio::null()).spawn().expect("qemu runs"));
    let deadline = Instant::now() + LONGEST;
    let said = || String::from_utf8_lossy(&fs::read(&console).unwrap_or_default()).into_owned();
    while machine.0.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "the virtual machine does not end:\n{}", said());
        std::thread::sleep(Duration::from_millis(50));
    }
    said()
}

/// The archive that the kernel unpacks and runs `/init` of.
fn initramfs(dir: &Path, test: &str) -> PathBuf {
    let root = dir.join("root");
    for name in ["bin", "dev", "proc", "sys", "tmp"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    let busybox = succeeds(Command::new("sh").args(["-c", "command -v busybox"]));
    fs::copy(busybox.trim(), root.join("bin/busybox")).unwrap();
    let keyctl = succeeds(Command::new("sh").args(["-c", "command -v keyctl"]));
    let us = std::env::current_exe().unwrap();
    for program in [&us, Path::new(BINARY), Path::new(keyctl.trim())] {
        install(program, &root);
    }
    let init = format!(
        "#!/bin/busybox sh\nexport PATH=/bin:/usr/bin HOME=/tmp {INSIDE}=1\n/bin/busybox --install -s /bin\n\
         mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev\n\
         chmod 1777 /tmp; ip link set lo up\n{} --exact {test} --nocapture 2>&1\npoweroff -f\n",
        us.display()
    );
    fs::write(root.join("init"), init).unwrap();
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755)).unwrap();
    succeeds(
        Command::new("sh").current_dir(&root).args(["-c", "find . | cpio --quiet -o -H newc | gzip -1 >../initramfs"]),
    );
    dir.join("initramfs")
}

/// A program at the path that it has here, less what only a debugger needs, and the libraries that it is linked with.
fn install(program: &Path, root: &Path) {
    let place = |path: &Path| {
        let place = root.join(path.strip_prefix("/").expect("an absolute path"));
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        place
    };
    succeeds(Command::new("strip").arg("-o").arg(place(program)).arg(program));
    let linked = succeeds(Command::new("ldd").arg(program));
    for library in linked.split_whitespace().filter(|word| word.starts_with('/')) {
        fs::copy(library, place(Path::new(library))).unwrap();
    }
}

/// Runs a command that must not fail; what it prints.
fn succeeds(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().expect("it runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
