package cgroup

import (
	"fmt"
	"strconv"
	"strings"
)

// Name is the cgroup of a virtual server, by its number.
func Name(id int) string { return fmt.Sprintf("vs%d", id) }

// Number is the virtual server's whose cgroup has the name; 0 for another's.
func Number(name string) int {
	word, ok := strings.CutPrefix(name, "vs")
	n, err := strconv.Atoi(word)
	if !ok || err != nil || Name(n) != name {
		return 0
	}
	return n
}

const ofService = ".service" // no file of the kernel's has that ending

// ServiceName is the cgroup of a service below its virtual server's, the nth. No
// service's name holds an '@'.
func ServiceName(service string, n int) string {
	if n == 0 {
		return service + ofService
	}
	return fmt.Sprintf("%s@%d%s", service, n, ofService)
}

// A ServiceUse is what a service uses, since it was started.
type ServiceUse struct {
	Name string `json:"name"`
	Use
}
