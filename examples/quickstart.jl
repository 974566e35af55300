# A student network learns from a teacher: follow the gradient flow, then land on the minimum.
# Run it with `julia` where MLPGF is installed, or with `pymlpgf julia examples/quickstart.jl`.
using MLPGF, LinearAlgebra, Printf

# The same numbers as in quickstart.py; samples are columns here.
grid = range(-2, 2, length = 21)
X = reduce(hcat, [[a, b] for a in grid for b in grid])
Y = tanh.(X[1, :] .+ 0.5 .* X[2, :]) .- 0.7 .* tanh.(X[1, :] .- X[2, :] .+ 0.3)

net = Net(layers = ((3, tanh, true), (1, identity, true)), input = X, target = Y)
p = random_params(1, net)
res = train(net, p; alg = Rodas5P(), maxT = 100, maxtime_optim = 5)
println(res)
@printf("loss %.6f -> %.6e -> %.3e, |gradient| = %.1e\n", loss(net, p), res.ode.loss, res.loss, res.gnorm)
println("smallest eigenvalue of the Hessian: ", eigmin(Symmetric(hessian(net, res.x))))
