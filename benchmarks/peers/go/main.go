// Command echo is grpc-go's part in the benchmarks: `echo server` and `echo client TARGET`.
//
// The server prints its port. The client reads lines "IN_FLIGHT SECONDS", keeps that many calls in flight for that
// long, and answers each line with one of JSON. Both end with their standard input.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const method = "/rpc_async.demo.v1.Demo/Echo"

// message stands for both EchoRequest and EchoResponse. Its generated code reads and writes the same bytes as theirs:
// one field of bytes, with the number 1.
type message = wrapperspb.BytesValue

type echoServer interface {
	Echo(context.Context, *message) (*message, error)
}

type echo struct{}

func (echo) Echo(_ context.Context, request *message) (*message, error) {
	return &message{Value: request.Value}, nil
}

// service is what protoc-gen-go-grpc writes for the demo service.
var service = grpc.ServiceDesc{
	ServiceName: "rpc_async.demo.v1.Demo",
	HandlerType: (*echoServer)(nil),
	Methods: []grpc.MethodDesc{{
		MethodName: "Echo",
		Handler: func(server any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
			request := new(message)
			if err := decode(request); err != nil {
				return nil, err
			}
			if interceptor == nil {
				return server.(echoServer).Echo(ctx, request)
			}
			info := &grpc.UnaryServerInfo{Server: server, FullMethod: method}
			return interceptor(ctx, request, info, func(ctx context.Context, request any) (any, error) {
				return server.(echoServer).Echo(ctx, request.(*message))
			})
		},
	}},
	Metadata: "rpc_async/demo/v1/demo.proto",
}

func serve() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	server.RegisterService(&service, echo{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	return server.Serve(listener)
}

type sample struct {
	CallsPerSecond float64 `json:"calls_per_second"`
	P50            float64 `json:"p50_ms"`
	P99            float64 `json:"p99_ms"`
}

func keepInFlight(connection *grpc.ClientConn, inFlight int, seconds float64) (sample, error) {
	payload := bytes.Repeat([]byte("x"), 100)
	times := make([][]time.Duration, inFlight)
	errs := make([]error, inFlight)
	var workers sync.WaitGroup
	start := time.Now()
	end := start.Add(time.Duration(seconds * float64(time.Second)))
	for number := range inFlight {
		workers.Go(func() {
			for began := start; began.Before(end); {
				reply := new(message)
				request := &message{Value: payload}
				if err := connection.Invoke(context.Background(), method, request, reply); err != nil {
					errs[number] = err
					return
				}
				now := time.Now()
				times[number] = append(times[number], now.Sub(began))
				began = now
			}
		})
	}
	workers.Wait()
	took := time.Since(start)
	for _, err := range errs {
		if err != nil {
			return sample{}, err
		}
	}
	all := slices.Concat(times...)
	slices.Sort(all)
	at := func(share float64) float64 {
		index := min(len(all)-1, int(float64(len(all))*share))
		return float64(all[index]) / float64(time.Millisecond)
	}
	return sample{float64(len(all)) / took.Seconds(), at(0.5), at(0.99)}, nil
}

func call(target string) error {
	connection, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	questions := bufio.NewScanner(os.Stdin)
	answers := json.NewEncoder(os.Stdout)
	for questions.Scan() {
		var inFlight int
		var seconds float64
		if _, err := fmt.Sscan(questions.Text(), &inFlight, &seconds); err != nil {
			return err
		}
		result, err := keepInFlight(connection, inFlight, seconds)
		if err != nil {
			return err
		}
		if err := answers.Encode(result); err != nil {
			return err
		}
	}
	return questions.Err()
}

func main() {
	var err error
	switch {
	case len(os.Args) == 2 && os.Args[1] == "server":
		err = serve()
	case len(os.Args) == 3 && os.Args[1] == "client":
		err = call(os.Args[2])
	default:
		log.Fatal("usage: echo server | echo client TARGET")
	}
	if err != nil {
		log.Fatal(err)
	}
}
