package ipmd_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/vsrun/vsrun/stats/ipmd"
)

func ExampleClient_Ask() {
	client := ipmd.Open("/run/vsrun/ipmd.sock")
	defer client.Close()
	ctx := context.Background()
	answer, err := client.Ask(ctx, ipmd.Query{IDs: []string{"8", "web"}, MaxAge: 5 * time.Second})
	switch {
	case errors.Is(err, ipmd.ErrNotFound):
		log.Print("one of them is not there: ", err)
	case err != nil:
		log.Print(err)
	}
	for _, s := range answer.Samples {
		fmt.Println(s.Name, s.Total.RxBytes)
	}
	// Those that have changed since.
	answer, err = client.Ask(ctx, ipmd.Query{IDs: []string{"8", "web"}, Since: answer.Cursor})
	fmt.Println(len(answer.Samples), answer.Changes, err)
}

func ExampleClient_Watch() {
	client := ipmd.Open("/run/vsrun/ipmd.sock")
	defer client.Close()
	rates := map[int]uint64{}
	for answer, err := range client.Watch(context.Background(), ipmd.Query{}, time.Second) {
		if err != nil {
			log.Print(err) // it goes on when ipmd is back
			continue
		}
		if !answer.Changes {
			clear(rates)
		}
		for _, s := range answer.Samples {
			rates[s.ID] = s.Total.TxBytes
		}
	}
}
