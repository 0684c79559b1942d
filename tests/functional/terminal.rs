//! An interactive shell on a real terminal.

use sandbox_tests::pty::OnTerminal;
use sandbox_tests::{run, tiny};

fn shell() -> OnTerminal {
    let mut shell = OnTerminal::start(&run(tiny()).with("--interactive"));
    shell.shows("# ");
    shell
}

/// "--interactive: Connect the app with this terminal"
#[test]
fn a_shell_has_the_terminals_name_and_size_and_hears_of_another_size() {
    let mut shell = shell();
    shell.types("stty size; echo $TERM; test -t 0 -a -t 1 -a -t 2 && echo all\n");
    shell.shows("\n24 80\r\nvt100\r\nall\r\n");
    shell.resize(50, 132);
    // The shell may be asked before the news has come.
    shell.types("while [ \"$(stty size)\" != '50 132' ]; do sleep 0.1; done; echo resi''zed\n");
    shell.shows("resized\r\n");
    shell.types("exit 3\n");
    assert_eq!(shell.ends(), 3, "{}", shell.text());
}

/// A terminal's Ctrl-C is the guest's: it interrupts what runs in the shell, not the pod.
#[test]
fn ctrl_c_interrupts_a_command_and_ctrl_d_ends_the_shell() {
    let mut shell = shell();
    shell.types("echo be''fore; sleep 1000; echo \"status $?\"\n");
    shell.shows("before\r\n");
    // dash drops the rest of the line.
    shell.types("\x03");
    shell.shows("# ");
    shell.types("echo sti''ll\n");
    shell.shows("still\r\n");
    shell.types("\x04");
    assert_eq!(shell.ends(), 0, "{}", shell.text());
}

/// The host's terminal is left as it was found.
#[test]
fn the_hosts_terminal_gets_its_modes_back() {
    let mut shell = OnTerminal::start(&run(tiny()).with("--interactive"));
    let before = shell.modes();
    shell.shows("# ");
    assert_ne!(shell.modes().local_modes, before.local_modes, "raw while the app runs");
    shell.types("exit\n");
    assert_eq!(shell.ends(), 0, "{}", shell.text());
    let after = shell.modes();
    assert_eq!(
        (after.local_modes, after.input_modes, after.output_modes),
        (before.local_modes, before.input_modes, before.output_modes)
    );
}
