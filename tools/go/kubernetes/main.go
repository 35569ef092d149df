// Command kubernetes is the four server programs of Kubernetes in one: a cluster for tests.
//
// Usage: kubernetes kube-apiserver|kube-controller-manager|kube-scheduler|kubelet [flags]
package main

import (
	"fmt"
	"os"
	"strings"
	_ "time/tzdata" // time zones of CronJobs

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	"k8s.io/component-base/version"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

const usage = "usage: kubernetes kube-apiserver|kube-controller-manager|kube-scheduler|kubelet"

func main() {
	if len(os.Args) == 2 && os.Args[1] == "--version" {
		fmt.Println("kubernetes", strings.TrimPrefix(version.Get().GitVersion, "v"))
		return
	}
	command := program()
	if command == nil {
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(2)
	}
	// Each program reads os.Args by itself and must not see its own name among the flags.
	os.Args = os.Args[1:]
	os.Exit(cli.Run(command))
}

func program() *cobra.Command {
	if len(os.Args) < 2 {
		return nil
	}
	switch os.Args[1] {
	case "kube-apiserver":
		return apiserver.NewAPIServerCommand()
	case "kube-controller-manager":
		return controllers.NewControllerManagerCommand()
	case "kube-scheduler":
		return scheduler.NewSchedulerCommand()
	case "kubelet":
		return kubelet.NewKubeletCommand()
	}
	return nil
}
