package nsutil

// LeavingName is what the link of that name is called while another one takes its place, so
// that there are never two of one name. No interface may be called so by anybody else.
func LeavingName(name string) string {
	return name[:min(len(name), maxName-len(LeavingMark))] + LeavingMark
}

// LeavingMark ends such a name.
const LeavingMark = "~"

// maxName is IFNAMSIZ less the closing zero.
const maxName = 15
