package main

import (
	"time"
)

// restart is what it takes until all proxies have their configuration from a controller that was killed and started again.
// They connect again by themselves, as a crowd, and hold nothing that they had before.
type restart struct {
	FirstSeconds float64 `json:"first_client_s"` // from the start of the process
	AllSeconds   float64 `json:"all_clients_s"`
	CPUSeconds   float64 `json:"cpu_s"`
	MemoryMaxMiB float64 `json:"memory_max_mib"`
	MemoryMiB    float64 `json:"memory_mib"`
}

func (b *bench) restartController(found *result) error {
	if !b.restarts {
		return nil
	}
	for _, p := range b.proxies {
		p.life.Store(newLife())
	}
	b.controller.stop()
	started := time.Now()
	var err error
	if b.controller, err = startProcess(b.command, b.controllerLog); err != nil {
		return err
	}
	last, err := b.awaitReady(b.proxies)
	if err != nil {
		return err
	}
	first := last
	for _, p := range b.proxies {
		if at := p.life.Load().at; at.Before(first) {
			first = at
		}
	}
	found.Restart = &restart{
		FirstSeconds: hundredths(first.Sub(started).Seconds()),
		AllSeconds:   hundredths(last.Sub(started).Seconds()),
		CPUSeconds:   hundredths(b.controller.cpu().Seconds()),
		MemoryMaxMiB: b.controller.memoryMiB("VmHWM"),
	}
	time.Sleep(b.settle)
	found.Restart.MemoryMiB = b.controller.memoryMiB("VmRSS")
	return nil
}
