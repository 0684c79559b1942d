"""What POSIX and Linux promise about files, checked from inside a pod: posix.py DIRECTORY.

Each function is one promise; what fails is printed and makes the exit status 1.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import socket
import stat
import sys
import tempfile
import traceback

libc = ctypes.CDLL(None, use_errno=True)
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2


def renameat2(old, new, flags):
    old, new = os.fsencode(old), os.fsencode(new)
    if libc.renameat2(-100, old, -100, new, flags) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def refused(number, action, *arguments):
    try:
        action(*arguments)
    except OSError as error:
        assert error.errno == number, f"{errno.errorcode[error.errno]}, not {errno.errorcode[number]}"
    else:
        raise AssertionError(f"not refused with {errno.errorcode[number]}")


def write(path, content=b"content"):
    with open(path, "wb") as file:
        file.write(content)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def hard_links_are_one_file():
    write("a")
    os.link("a", "b")
    assert os.stat("a").st_ino == os.stat("b").st_ino and os.stat("a").st_nlink == 2
    write("b", b"changed")
    assert read("a") == b"changed"
    os.unlink("a")
    assert os.stat("b").st_nlink == 1


def a_rename_replaces_at_once():
    write("a", b"a"), write("b", b"b")
    with open("b", "rb") as old:
        os.rename("a", "b")
        assert read("b") == b"a" and not os.path.exists("a")
        assert old.read() == b"b", "a replaced file lives as long as it is open"


def rename_exchange_and_noreplace():
    write("a", b"a"), write("b", b"b")
    refused(errno.EEXIST, renameat2, "a", "b", RENAME_NOREPLACE)
    renameat2("a", "b", RENAME_EXCHANGE)
    assert read("a") == b"b" and read("b") == b"a"
    renameat2("a", "c", RENAME_NOREPLACE)
    assert read("c") == b"b"


def directories_are_renamed_with_what_is_in_them():
    os.makedirs("d/e"), write("d/e/f"), os.mkdir("full"), write("full/x")
    os.rename("d", "g")
    assert read("g/e/f") == b"content"
    refused(errno.ENOTEMPTY, os.rename, "g", "full")
    refused(errno.EINVAL, os.rename, "g", "g/e/inside")


def extended_attributes_are_kept():
    write("a")
    os.setxattr("a", "user.note", b"\0binary\xff")
    os.setxattr("a", "user.other", b"x" * 2000)
    assert os.getxattr("a", "user.note") == b"\0binary\xff"
    assert {"user.note", "user.other"} <= set(os.listxattr("a"))
    refused(errno.EEXIST, os.setxattr, "a", "user.note", b"", os.XATTR_CREATE)
    os.removexattr("a", "user.note")
    refused(errno.ENODATA, os.getxattr, "a", "user.note")


def locks_hold_off_another_process():
    for lock in fcntl.lockf, fcntl.flock:
        with open("lock", "w") as file:
            lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            child = os.fork()
            if child == 0:
                try:
                    with open("lock", "w") as other:
                        lock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os._exit(1)
                except BlockingIOError:
                    os._exit(0)
            assert os.waitpid(child, 0)[1] == 0, f"the other process got {lock.__name__}"


def a_shared_mapping_is_the_file():
    write("a", b"\0" * 10000)
    with open("a", "r+b") as file, mmap.mmap(file.fileno(), 10000) as mapping:
        mapping[5000:5004] = b"here"
        mapping.flush()
        assert os.pread(file.fileno(), 4, 5000) == b"here"
        os.pwrite(file.fileno(), b"there", 6000)
        assert mapping[6000:6005] == b"there"


def holes_are_found():
    with open("a", "w+b") as file:
        os.pwrite(file.fileno(), b"x", 1 << 20)
        assert os.lseek(file.fileno(), 0, os.SEEK_DATA) == 1 << 20
        assert os.lseek(file.fileno(), 0, os.SEEK_HOLE) == 0
        assert os.stat("a").st_blocks * 512 < 1 << 20


def a_sparse_file_beyond_4_gib():
    with open("large", "w+b") as file:
        os.pwrite(file.fileno(), b"end", 5 << 30)
        os.truncate("large", (6 << 30) + 1)
        assert os.stat("large").st_size == (6 << 30) + 1
        assert os.pread(file.fileno(), 3, 5 << 30) == b"end"
        assert os.pread(file.fileno(), 3, (1 << 30) + 5) == b"\0\0\0"


def space_is_allocated_and_given_back():
    with open("a", "w+b") as file:
        os.posix_fallocate(file.fileno(), 0, 1 << 20)
        assert os.stat("a").st_blocks * 512 >= 1 << 20
        os.pwrite(file.fileno(), b"x" * 8192, 0)
        KEEP_SIZE, PUNCH_HOLE = 1, 2
        offset, length = ctypes.c_long(0), ctypes.c_long(4096)
        assert libc.fallocate(file.fileno(), KEEP_SIZE | PUNCH_HOLE, offset, length) == 0
        assert os.pread(file.fileno(), 4097, 0) == b"\0" * 4096 + b"x"


def names_need_not_be_text():
    name = b"\xff\xfe \n\\"
    write(name)
    assert name in os.listdir(b".")
    longest = b"n" * 255
    write(longest)
    assert read(longest) == b"content"
    refused(errno.ENAMETOOLONG, write, b"n" * 256)


def temporary_files_work_without_o_tmpfile():
    # virtiofsd has no FUSE_TMPFILE; programs know that answer and go on without.
    refused(errno.EOPNOTSUPP, os.open, ".", os.O_TMPFILE | os.O_RDWR, 0o600)
    with tempfile.TemporaryFile(dir=".") as file:
        file.write(b"hidden"), file.seek(0)
        assert file.read() == b"hidden" and os.listdir(".") == []


def an_unlinked_file_lives_as_long_as_it_is_open():
    with open("a", "w+b") as file:
        os.unlink("a")
        file.write(b"still"), file.flush(), file.seek(0)
        assert file.read() == b"still" and os.fstat(file.fileno()).st_nlink == 0


def appends_from_several_processes_do_not_overwrite():
    children = []
    for number in range(4):
        child = os.fork()
        if child == 0:
            file = os.open("log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            for _ in range(50):
                os.write(file, b"%d" % number * 99 + b"\n")
            os._exit(0)
        children.append(child)
    assert all(os.waitpid(child, 0)[1] == 0 for child in children)
    lines = read("log").split(b"\n")[:-1]
    assert len(lines) == 200 and all(len(set(line)) == 1 and len(line) == 99 for line in lines)


def owners_modes_and_times_are_set_and_kept():
    write("a")
    os.chown("a", 1234, 5678)
    os.chmod("a", 0o6751)
    os.utime("a", ns=(1_000_000_001, 2_000_000_002))
    found = os.stat("a")
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (1234, 5678, 0o6751)
    assert (found.st_atime_ns, found.st_mtime_ns) == (1_000_000_001, 2_000_000_002)
    write("b")
    os.chmod("b", 0o4755)
    child = os.fork()
    if child == 0:
        os.setuid(1000)
        refused(errno.EPERM, os.chmod, "a", 0o777)
        refused(errno.EACCES, write, "a")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def set_group_id_directories_hand_their_group_down():
    os.mkdir("d")
    os.chown("d", 0, 4321)
    os.chmod("d", 0o2775)
    write("d/a"), os.mkdir("d/e")
    assert os.stat("d/a").st_gid == 4321
    assert os.stat("d/e").st_gid == 4321 and os.stat("d/e").st_mode & stat.S_ISGID


def links_pipes_and_sockets_work():
    os.symlink("nowhere/at/all", "link")
    assert os.readlink("link") == "nowhere/at/all" and not os.path.exists("link")
    os.mkfifo("pipe", 0o600)
    child = os.fork()
    if child == 0:
        write("pipe", b"through")
        os._exit(0)
    assert read("pipe") == b"through"
    os.waitpid(child, 0)
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind("socket"), server.listen()
        client.connect("socket"), client.send(b"hello")
        assert server.accept()[0].recv(9) == b"hello"


def directories_are_what_was_made_in_them():
    os.mkdir("d")
    assert os.stat("d").st_nlink >= 1
    for number in range(500):
        write(f"d/{number}", b"")
    with os.scandir("d") as entries:
        seen = 0
        for entry in entries:
            assert entry.is_file()
            os.unlink(entry.path)
            seen += 1
    assert seen == 500 and os.listdir("d") == []
    os.rmdir("d")
    refused(errno.ENOENT, os.rmdir, "d")


def the_file_system_tells_its_size():
    found = os.statvfs(".")
    assert found.f_blocks > 0 and found.f_namemax == 255


def copies_are_copies():
    write("a", os.urandom(300_000))
    with open("a", "rb") as source, open("b", "wb") as target:
        left = 300_000
        while left:
            left -= os.copy_file_range(source.fileno(), target.fileno(), left)
    assert read("a") == read("b")


def main(directory):
    failed = 0
    promises = [value for value in globals().values() if callable(value)]
    promises = [p for p in promises if p.__module__ == "__main__" and not p.__code__.co_argcount]
    for promise in promises:
        place = os.path.join(directory, promise.__name__)
        os.mkdir(place)
        os.chdir(place)
        try:
            promise()
        except BaseException:
            failed += 1
            print("FAILED", promise.__name__, traceback.format_exc(), file=sys.stderr)
    print(f"{len(promises) - failed} kept, {failed} broken")
    sys.exit(failed != 0)


if __name__ == "__main__":
    main(sys.argv[1])
