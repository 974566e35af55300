# Our own methods beside those of the same name in OrdinaryDiffEq and Optim, given the same compiled gradient and Hessian:
# time and distance to a tight reference of the flow, time and gradient norm of minimisations. Needs these packages, on
# Julia 1.10 or newer; docs/providers.md shows what it printed.
using MLPGF, Printf
import Optim, OrdinaryDiffEqBDF, OrdinaryDiffEqRosenbrock, OrdinaryDiffEqSDIRK, OrdinaryDiffEqTsit5

"Shortest of several runs in seconds, and the last result; the first call compiles."
function timed(f; budget=1.0)
    f()
    best, spent, result = Inf, 0.0, nothing
    while spent < budget
        t = @elapsed result = f()
        best, spent = min(best, t), spent + t
    end
    return best, result
end

function student(N; hidden=8, teacher=4, seed=1)
    X = [sin(1.3i * d + 0.7i^2 / (d + 1)) + cos(2.1i * d) for d in 1:2, i in 1:N]
    layers(k) = ((k, softplus, true), (1, MLPGF.activation("identity"), true))
    guide = Net(layers=layers(teacher), input=X, target=zeros(1, N))
    net = Net(layers=layers(hidden), input=X, target=predict(guide, 2 .* random_params(10, guide)))
    return net, random_params(seed, net)
end

pairs = [("Tsit5", Tsit5(), OrdinaryDiffEqTsit5.Tsit5()), ("Rodas5P", Rodas5P(), OrdinaryDiffEqRosenbrock.Rodas5P()),
         ("TRBDF2", TRBDF2(), OrdinaryDiffEqSDIRK.TRBDF2()), ("QNDF", QNDF(), OrdinaryDiffEqBDF.QNDF()),
         ("Rodas5P, KenCarp58", Rodas5P(), OrdinaryDiffEqSDIRK.KenCarp58())]
println("flow of the 33-parameter student to t = 10: milliseconds and distance to a reference, builtin | sciml")
for N in (100, 1000, 10_000)
    net, x0 = student(N)
    exact = flow(net, x0; alg=Rodas5P(), maxT=10, abstol=1e-13, reltol=1e-13).x
    distance(x) = sqrt(sum(abs2, x - exact) / sum(abs2, exact))
    for (name, own, other) in pairs, tolerance in (1e-5, 1e-8)
        run(alg) = timed(() -> flow(net, x0; alg=alg, maxT=10, abstol=tolerance, reltol=tolerance); budget=0.5)
        (t1, r1), (t2, r2) = run(own), run(other)
        @printf("N = %5d  %-18s %.0e  %8.2f %.1e | %8.2f %.1e\n", N, name, tolerance, 1e3t1, distance(r1.x), 1e3t2, distance(r2.x))
    end
end

println("\nminimum of a regularised student: milliseconds and gradient norm, builtin | optim")
solvers = [("Newton", Newton(), Optim.Newton()), ("NewtonTrustRegion", NewtonTrustRegion(), Optim.NewtonTrustRegion()),
           ("BFGS", BFGS(), Optim.BFGS()), ("LBFGS", LBFGS(), Optim.LBFGS())]
for N in (100, 1000)
    X = [sin(1.3i * d + 0.7i^2 / (d + 1)) + cos(2.1i * d) for d in 1:2, i in 1:N]
    net = Net(layers=((3, tanh, true), (1, MLPGF.activation("identity"), true)), input=X, target=sin.(X[1, :] .* X[2, :]), l2=1e-3)
    for (name, own, other) in solvers, goal in (1e-8, 0.0)
        ratios = Float64[]
        for seed in 1:5
            x0 = random_params(seed, net)
            run(solver) = timed(() -> minimize(net, x0; optim_solver=solver, min_gnorm=goal, maxtime=5); budget=0.1)
            (t1, r1), (t2, r2) = run(own), run(other)
            push!(ratios, t2 / t1)
            @printf("N = %4d  %-17s %.0e seed %d  %8.2f %.1e loss %.8f | %8.2f %.1e loss %.8f\n", N, name, goal, seed, 1e3t1,
                    r1.gnorm, r1.loss, 1e3t2, r2.gnorm, r2.loss)
        end
        @printf("          geometric mean of optim over builtin: %.2f\n", exp(sum(log, ratios) / length(ratios)))
    end
end
