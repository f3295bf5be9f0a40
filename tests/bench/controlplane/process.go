package main

import (
	"fmt"
	"log"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is the controller being measured.
type process struct {
	command *exec.Cmd
	ended   chan struct{}
}

// startProcess runs a shell command that becomes the controller. It ends with this program.
func startProcess(shellCommand, logFile string) (*process, error) {
	output, err := os.Create(logFile)
	if err != nil {
		return nil, err
	}
	defer output.Close()
	command := exec.Command("sh", "-c", "exec "+shellCommand)
	command.Stdout, command.Stderr = output, output
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := command.Start(); err != nil {
		return nil, err
	}
	started := &process{command: command, ended: make(chan struct{})}
	go func() {
		log.Printf("the controller ended (%v); its output is in %s", command.Wait(), logFile)
		close(started.ended)
	}()
	return started, nil
}

func (p *process) stop() {
	p.command.Process.Kill()
	<-p.ended
}

func (p *process) hasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// cpu is what the process has used so far, of its own CPU clock.
func (p *process) cpu() time.Duration {
	const schedClock = 2 // see clock_getcpuclockid(3)
	var used unix.Timespec
	if err := unix.ClockGettime(int32(^p.command.Process.Pid<<3|schedClock), &used); err != nil {
		return 0
	}
	return time.Duration(used.Nano())
}

// memoryMiB reads VmRSS (now) or VmHWM (at most so far).
func (p *process) memoryMiB(key string) float64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.command.Process.Pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == key+":" {
			kib, _ := strconv.ParseFloat(fields[1], 64)
			return hundredths(kib / 1024)
		}
	}
	return 0
}
