// Package process runs the programs that a test is made of. Each writes its log to a file and is ended by its own id.
package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// pollEvery is the time between two looks at a program that is not ready yet.
const pollEvery = 20 * time.Millisecond

// Process is a program that was started.
type Process struct {
	// Name of the program, for messages.
	Name string
	// LogFile holds what it wrote to both outputs.
	LogFile string

	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

// Start runs cmd with its outputs in logFile. The program ends at the latest with this one, unless it is detached.
func Start(name, logFile string, cmd *exec.Cmd, detached bool) (*Process, error) {
	log, err := os.Create(logFile)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	// A group of its own keeps the terminal's interrupt away from it: programs are stopped one after another, in an order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if !detached {
		// A test that is killed runs no clean-up.
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &Process{Name: name, LogFile: logFile, cmd: cmd, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// PID is the id of the program's process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Await calls ready until it returns nil. It gives up when the program ends or ctx does, and then quotes the log's end.
func (p *Process) Await(ctx context.Context, ready func(context.Context) error) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended before it was ready (%v), its log ends with:\n%s", p.Name, p.err, p.logTail())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w (%v), its log ends with:\n%s", p.Name, err, ctx.Err(), p.logTail())
		case <-tick.C:
		}
	}
}

// Answers is for Await: it returns nil when a server answers 200 to a GET.
func Answers(ctx context.Context, client *http.Client, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(response.Body)
		return fmt.Errorf("%s answers %s: %s", url, response.Status, text)
	}
	return nil
}

// Stop asks the program to end and waits for it; after grace it is killed.
func (p *Process) Stop(grace time.Duration) {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); errors.Is(err, os.ErrProcessDone) {
		return
	}
	select {
	case <-p.done:
	case <-time.After(grace):
		p.Kill()
	}
}

// Kill ends the program at once.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// Ended is closed when the program has ended.
func (p *Process) Ended() <-chan struct{} { return p.done }

func (p *Process) logTail() string {
	const lines = 20
	text, err := os.ReadFile(p.LogFile)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
