package service

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vsrun/vsrun/nsutil"
)

// An NFS client names a file by a handle, and can make one up: it is the file's
// number in its filesystem. A server such as NFS-Ganesha with FSAL_VFS has the kernel
// open that (open_by_handle_at(2)), which looks neither at directories nor at what is
// mounted where. So a directory is safe to export only if it is the root of a
// filesystem, and the whole of it.

// checkExports refuses to start an NFS server that exports a part of a filesystem.
// It looks as the server will: inside, with its files.
func (o order) checkExports() error {
	if o.Settings.UnsafeExports || !isGanesha(o.Command) {
		return nil
	}
	conf := ganeshaConf(o.Command[1:])
	exports, err := readExports(conf, 0)
	if errors.Is(err, os.ErrNotExist) { // which the server will complain of
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot tell what it exports: %w", err)
	}
	for _, dir := range exports {
		whole, err := isWholeFilesystem(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("cannot tell whether it may export %s: %w", dir, err)
		}
		if err == nil && !whole {
			return fmt.Errorf("it exports %s, which shares a filesystem with other directories: clients could reach these by forged handles; "+
				"make it a volume (volumes: [{path: %[1]s, size: 10G}]), or allow it (unsafeExports: true)", dir)
		}
	}
	return nil
}

func isGanesha(command []string) bool {
	return len(command) > 0 && filepath.Base(command[0]) == "ganesha.nfsd"
}

// ganeshaConf is the configuration that the arguments name, as getopt(3) reads them
// (ganesha.nfsd(8)).
func ganeshaConf(args []string) string {
	const withValue = "LNfpEI"
	file := "/etc/ganesha/ganesha.conf"
	for i := 0; i < len(args); i++ {
		options, ok := strings.CutPrefix(args[i], "-")
		for ok && options != "" {
			option := options[:1]
			options = options[1:]
			if !strings.Contains(withValue, option) {
				continue
			}
			if options == "" && i+1 < len(args) {
				i++
				options = args[i]
			}
			if option == "f" {
				file = options
			}
			break
		}
	}
	return file
}

// An export is an EXPORT block of a configuration of NFS-Ganesha
// (ganesha-export-config(8)).
type export struct {
	path  string
	fsals []string // in lower case, those below others too
}

// byHandle reports whether the kernel is given handles, as far as is known.
func (e export) byHandle() bool {
	return len(e.fsals) == 0 || slices.Contains(e.fsals, "vfs") || slices.Contains(e.fsals, "xfs")
}

// readExports reads what a configuration exports, and the files that it includes.
func readExports(file string, depth int) ([]string, error) {
	if depth > 10 {
		return nil, fmt.Errorf("%s: is included too deep", file)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var paths, blocks []string // blocks are those that a word is in, in lower case
	var e export
	var before, key string // the latest word, and the latest before a =
	for _, word := range ganeshaWords(string(text)) {
		switch {
		case word == "{":
			blocks = append(blocks, strings.ToLower(before))
		case word == "}":
			blocks = blocks[:max(len(blocks)-1, 0)]
			if len(blocks) == 0 && e.path != "" && e.byHandle() {
				paths = append(paths, e.path)
			}
			if len(blocks) == 0 {
				e = export{}
			}
		case word == "=":
			key = strings.ToLower(before)
		case before == "%include" && path.IsAbs(unquoted(word)):
			more, err := readExports(unquoted(word), depth+1)
			if err != nil {
				return nil, err
			}
			paths = append(paths, more...)
		case strings.HasPrefix(before, "%"):
			return nil, fmt.Errorf("%s %s is not followed: include files by their absolute paths", before, word)
		case before == "=" && len(blocks) > 0 && blocks[0] == "export":
			switch inner := blocks[len(blocks)-1]; {
			case key == "path" && len(blocks) == 1:
				e.path = unquoted(word)
			case key == "name" && inner == "fsal":
				e.fsals = append(e.fsals, strings.ToLower(unquoted(word)))
			}
		}
		before = word
	}
	return paths, nil
}

// ganeshaWords splits a configuration as its lexer does (nfs-ganesha,
// config_parsing/conf_lex.l). A quoted word keeps its quotes.
func ganeshaWords(text string) []string {
	var words []string
	for text != "" {
		n := 1
		switch c := text[0]; {
		case strings.IndexByte(" \t\r\f\n;,", c) >= 0:
			text = text[1:]
			continue
		case c == '#':
			_, text, _ = strings.Cut(text, "\n")
			continue
		case strings.IndexByte("{}=", c) >= 0:
		case c == '"' || c == '\'':
			for n < len(text) && text[n] != c {
				if c == '"' && text[n] == '\\' {
					n++
				}
				n++
			}
			n = min(n+1, len(text))
		default:
			if n = strings.IndexAny(text, " \t\r\f\n;,#{}=\"'"); n < 0 {
				n = len(text)
			}
		}
		words, text = append(words, text[:n]), text[n:]
	}
	return words
}

// unquoted is what a word means; in double quotes a backslash makes the next
// character an ordinary one.
func unquoted(word string) string {
	if len(word) < 2 || word[0] != '"' && word[0] != '\'' {
		return word
	}
	inner := word[1 : len(word)-1]
	if word[0] == '\'' {
		return inner
	}
	var b strings.Builder
	for i := 0; i < len(inner); i++ {
		if inner[i] == '\\' && i+1 < len(inner) {
			i++
		}
		b.WriteByte(inner[i])
	}
	return b.String()
}

// isWholeFilesystem reports whether the path is the root of a filesystem that is not
// the system's own.
func isWholeFilesystem(path string) (bool, error) {
	var top, st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, "/", 0, 0, &top); err != nil {
		return false, err
	}
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_MNT_ID, &st); err != nil {
		return false, err
	}
	if st.Attributes&unix.STATX_ATTR_MOUNT_ROOT == 0 || st.Dev_major == top.Dev_major && st.Dev_minor == top.Dev_minor {
		return false, nil
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return false, err
	}
	defer f.Close()
	root, err := rootOfMount(f, st.Mnt_id)
	return root == "/", err
}

// rootOfMount reads a /proc/PID/mountinfo: which directory of its filesystem a mount
// shows (proc_pid_mountinfo(5), field 4).
func rootOfMount(mountinfo io.Reader, id uint64) (string, error) {
	lines := bufio.NewScanner(mountinfo)
	for lines.Scan() {
		if f := strings.Fields(lines.Text()); len(f) > 3 && f[0] == strconv.FormatUint(id, 10) {
			return nsutil.Unescape(f[3]), nil
		}
	}
	return "", errors.Join(lines.Err(), fmt.Errorf("there is no mount %d", id))
}
