// Holds the namespaces of a pod for as long as the pod lasts; does nothing else.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	signal.Ignore(syscall.SIGCHLD) // where a pod shares its process ids, the kernel buries orphans
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGINT, syscall.SIGTERM)
	<-end
}
